"""The hard budget: nothing is sent whose worst case might not be paid for any more."""

from __future__ import annotations

from collections.abc import Iterable

from data.errors import RunError
from kb_builder.cost import cost, usage_of, worst_case
from kb_builder.ledger import Entry, Ledger
from kb_builder.request import Request, request_from_json
from kb_builder.settings import Price


class Budget:
    """US dollars: `spent` (over all runs of a ledger), `reserved` for what is in flight, `most` of both.

    Before a call its worst case is reserved. After it the reservation is given back and what the answer cost
    is booked: its true cost, or the whole reservation where the answer does not say what it used, or broke
    off and may have been charged for. So the sum never passes `most`, and the server's bill cannot either.
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
            f"knowledge base and the next request may cost ${wanted:.6f}; raise `budget_usd` and run again: "
            "answered requests are kept"
        )


def open_budget(most: float, price: Price, ledger: Ledger, *, endpoint: str, model: str) -> Budget:
    """The budget of a run, with all that earlier runs have spent.

    Answers whose cost is not in the ledger count by their usage, or else with their worst case.
    """
    return Budget(most, spent=ledger.spent() + _unpriced(ledger.unpriced(), price, endpoint, model))


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


def bounded_worst_case(price: Price, request: Request, *, batch: bool = False) -> float:
    """The most that a request can cost; `RunError` where nothing bounds it, which a budget cannot allow."""
    worst = worst_case(price, request, batch=batch)
    if worst is None:
        lacks = (
            "it has no `max_tokens`"
            if request.max_tokens is None
            else "give `image_tokens` in `price` (sound and video have no bound: empty `native`)"
        )
        raise RunError(f"`budget_usd` is set, and nothing bounds what a request may cost: {lacks}")
    return worst
