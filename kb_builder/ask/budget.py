"""The hard budget: nothing is sent whose worst case might not be paid for any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc

from data.errors import ProjectError, RunError
from data.reads import columns
from kb_builder.ask.cost import cost, price_of, usage_of, worst_case
from kb_builder.ask.endpoint.client import endpoint_of
from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.request import Request, request_from_json
from kb_builder.settings import TRAITS, DescribeSamples, Price

_UNBOUNDED = "`budget_usd` is set, and nothing bounds what a request may cost"
_NO_MEDIA_PRICE = "give `image_tokens` in `price` (sound and video have no bound: empty `native`)"


class Budget:
    """US dollars: `spent` (over all runs of a ledger), `reserved` for what is in flight, `most` of both.

    Before a call its worst case is reserved. After it the reservation is given back and what the answer cost
    is booked: its true cost, or the whole reservation where the answer does not say what it used, or broke
    off and may have been charged for. What broke off is written into the ledger's file (`write_off`), so that
    later runs count it too. So the sum never passes `most`; the server's bill can, by what was in flight when
    a run was killed.
    """

    def __init__(self, most: float, *, spent: float) -> None:
        self.most = most
        self.spent = spent
        self.reserved = 0.0

    def reserve(self, amount: float) -> bool:
        """Reserve, if there is room for it."""
        if self.spent + self.reserved + amount > self.most:
            return False
        self.reserved += amount
        return True

    def settle(self, reserved: float, paid: float) -> None:
        """Give a reservation back and book what was paid."""
        self.reserved = max(0.0, self.reserved - reserved)  # sums of floats may end a hair below zero
        self.spent += paid

    def used_up(self, wanted: float) -> RunError:
        """What to say when `wanted` does not fit and nothing is in flight."""
        return RunError(
            f"the budget of ${self.most:g} is used up: ${self.spent:.4f} is spent over all runs of this "
            "knowledge base, answers that broke off and may have been charged for included, and the next "
            f"request may cost ${wanted:.6f}; raise `budget_usd` and run again: "
            "answered requests are kept"
        )


def open_budget(most: float, price: Price, ledger: Ledger, *, endpoint: str, model: str) -> Budget:
    """The budget of a run, with all that earlier runs have spent.

    Answers whose cost is not in the ledger count by their usage, or else with their worst case.
    """
    unpriced = _unpriced(ledger.unpriced(), price, endpoint, model)
    return Budget(most, spent=ledger.spent() + unpriced + ledger.read(written_off))


def write_off(connection: sqlite3.Connection, *, usd: float) -> None:
    """Write down, for `Ledger.write`, what an answer that broke off may have cost."""
    connection.execute("CREATE TABLE IF NOT EXISTS write_offs (usd REAL NOT NULL) STRICT")
    connection.execute("INSERT INTO write_offs VALUES (?)", (usd,))


def written_off(connection: sqlite3.Connection) -> float:
    """The sum of all that was written off, in US dollars."""
    (there,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'write_offs'").fetchone()
    return float(connection.execute("SELECT total(usd) FROM write_offs").fetchone()[0]) if there else 0.0


def _unpriced(entries: Iterable[Entry], price: Price, endpoint: str, model: str) -> float:
    total = 0.0
    for entry in entries:
        request = request_from_json(entry.request)
        if entry.attempts and (request.endpoint, request.model) == (endpoint, model):
            total += booked_cost(price, request, entry.answer or "{}", batch=entry.source == "batch")
    return total


def booked_cost(price: Price, request: Request, answer: str, *, batch: bool = False) -> float:
    """What an answer counts for in a budget: its true cost, or its worst case where it tells no usage."""
    usage = usage_of(answer)
    if usage is not None:
        paid = cost(price, usage.prompt_tokens, usage.completion_tokens, batch=batch)
    else:
        paid = worst_case(price, request, batch=batch)
    return paid or 0.0


def require_bounds(kb: Path, samples: DescribeSamples) -> None:
    """Raise ProjectError where the samples' budget cannot hold because nothing bounds what a request costs.

    That would be found at their first request; this tells it before the categories are paid for.
    """
    if samples.budget_usd is None or not TRAITS[samples.describer].endpoint:
        return
    price = price_of(samples.model, samples.price, endpoint=endpoint_of(samples.base_url))
    asked = pc.unique(columns(kb / "samples.parquet", ["modality"])["modality"]).to_pylist()
    if price is None:
        raise ProjectError(unknown_price(samples.model))
    if price.image_tokens is None and set(asked) - {"text"}:
        raise ProjectError(f"[describe.samples] {_UNBOUNDED}: {_NO_MEDIA_PRICE}")


def unknown_price(model: str | None) -> str:
    """What to say where a budget is set for a model without a price."""
    return (
        f"`budget_usd` is set, and the price of {model!r} is not known: set `price = "
        '{ input = ..., output = ..., date = "YYYY-MM-DD" }` (US dollars per million tokens)'
    )


def bounded_worst_case(price: Price, request: Request, *, batch: bool = False) -> float:
    """The most that a request can cost; `RunError` where nothing bounds it, which a budget cannot allow."""
    worst = worst_case(price, request, batch=batch)
    if worst is None:
        lacks = "it has no `max_tokens`" if request.max_tokens is None else _NO_MEDIA_PRICE
        raise RunError(f"{_UNBOUNDED}: {lacks}")
    return worst
