"""Hard budget: a request is sent only if its worst case still fits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data.errors import BudgetError, ProjectError, RunError
from data.reads import columns
from kb_builder.ask.cost import cost, price_of, usage_of, worst_case
from kb_builder.ask.endpoint.client import endpoint_of
from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.request import Request, request_from_json
from kb_builder.ask.write_offs import written_off
from kb_builder.settings import TRAITS, DescribeSamples, Price

_UNBOUNDED = "`budget_usd` is set, and nothing bounds what a request may cost"
_NO_MEDIA_PRICE = "give `image_tokens` in `price` (sound and video have no bound: empty `native`)"


class Budget:
    """US dollars: `spent` by all runs of a ledger, `reserved` for calls in flight, and `most` for their sum.

    The worst case of a call is reserved before it. After it the reservation is given back, and the cost of
    the answer is booked: its true cost, or the whole reservation where the answer reports no usage, or broke
    off and may have been charged. Answers that broke off are recorded in the ledger's file (`write_off`), so
    that later runs count them. So the sum never exceeds `most`; the server's bill can, by the calls that were
    in flight when a run was killed.
    """

    def __init__(self, most: float, *, spent: float) -> None:
        self.most = most
        self.spent = spent
        self.reserved = 0.0

    def reserve(self, amount: float) -> bool:
        """Reserve an amount if it fits; returns whether it did."""
        if self.spent + self.reserved + amount > self.most:
            return False
        self.reserved += amount
        return True

    def settle(self, reserved: float, paid: float) -> None:
        """Give a reservation back, and book the amount that was paid."""
        self.reserved = max(0.0, self.reserved - reserved)  # sums of floats may end just below zero
        self.spent += paid

    def used_up(self, wanted: float) -> BudgetError:
        """The error for an amount that does not fit while nothing is in flight."""
        return BudgetError(
            f"the budget of ${self.most:g} is used up: ${self.spent:.4f} is spent over all runs of this "
            "knowledge base, answers that broke off and may have been charged for included, and the next "
            f"request may cost ${wanted:.6f}; raise `budget_usd` and run again: "
            "answered requests are kept"
        )


def open_budget(most: float, price: Price, ledger: Ledger, *, endpoint: str, model: str) -> Budget:
    """The budget of a run, with the spending of all earlier runs.

    Answers whose cost is not in the ledger count with the cost of their usage, or else with their worst case.
    """
    unpriced = _unpriced(ledger.unpriced(), price, endpoint, model)
    return Budget(most, spent=ledger.spent() + unpriced + ledger.read(written_off))


def _unpriced(entries: Iterable[Entry], price: Price, endpoint: str, model: str) -> float:
    total = 0.0
    for entry in entries:
        request = request_from_json(entry.request)
        if entry.attempts and (request.endpoint, request.model) == (endpoint, model):
            total += booked_cost(price, request, entry.answer or "{}", batch=entry.source == "batch")
    return total


def booked_cost(price: Price, request: Request, answer: str, *, batch: bool = False) -> float:
    """The amount that a budget books for an answer: its cost, or its worst case if it reports no usage."""
    usage = usage_of(answer)
    if usage is not None:
        paid = cost(price, usage.prompt_tokens, usage.completion_tokens, batch=batch)
    else:
        paid = worst_case(price, request, batch=batch)
    return paid or 0.0


def require_bounds(kb: Path, samples: DescribeSamples) -> None:
    """Raise ProjectError where nothing bounds the cost of the samples' requests, so no budget can hold.

    Their first request would fail; checked beforehand, the error comes before the categories are paid for.
    """
    if samples.budget_usd is None or not TRAITS[samples.describer].endpoint:
        return
    price = price_of(samples.model, samples.price, endpoint=endpoint_of(samples.base_url))
    asked = columns(kb / "samples.parquet", ["modality"])["modality"].unique().to_pylist()
    if price is None:
        raise ProjectError(unknown_price(samples.model))
    if price.image_tokens is None and set(asked) - {"text"}:
        raise ProjectError(f"[describe.samples] {_UNBOUNDED}: {_NO_MEDIA_PRICE}")


def unknown_price(model: str | None) -> str:
    """The error message for a budget with a model whose price is not known."""
    return (
        f"`budget_usd` is set, and the price of {model!r} is not known: set `price = "
        '{ input = ..., output = ..., date = "YYYY-MM-DD" }` (US dollars per million tokens)'
    )


def bounded_worst_case(price: Price, request: Request, *, batch: bool = False) -> float:
    """The most that a request can cost in US dollars. Raises `RunError` where nothing bounds it."""
    worst = worst_case(price, request, batch=batch)
    if worst is None:
        lacks = "it has no `max_tokens`" if request.max_tokens is None else _NO_MEDIA_PRICE
        raise RunError(f"{_UNBOUNDED}: {lacks}")
    return worst
