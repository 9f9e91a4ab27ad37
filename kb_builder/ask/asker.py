"""What turns requests into ledger entries: the scheduler, the Batch API, or the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.request import Request, request_key


class Asker(Protocol):
    """Brings requests to their entries. Many callers may ask at once."""

    window: int  # so many requests may be waiting at once; more callers than fill it gain nothing

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The entry of every request, in order: from the ledger where it is there, else by asking for it.

        An entry is returned only after its commit. None: the ledger has none, and this asker does not ask, or
        the request's media cannot be read (`SampleError`): nothing was sent then, and nothing is recorded.
        Raises `RunError` or `KnowledgeBaseError` where the run cannot go on; what was answered is kept.
        """
        ...


@runtime_checkable
class Listener(Protocol):
    """An `Asker` that wants to know when all callers wait for it."""

    def more_may_come(self, coming: bool) -> None:
        """Whether more may be asked before one of the requests under way has its entry.

        Who says nothing is taken to ask all at once.
        """
        ...


class LedgerOnly:
    """An `Asker` that asks nobody: for parsing and judging again what is already paid for."""

    window = 100_000

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """What the ledger holds; None for what was never answered."""
        return [self._ledger.get(request_key(request)) for request in requests]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run goes. `answered` and `failed` count requests asked now, `from_ledger` those known before."""

    answered: int
    from_ledger: int
    failed: int
    in_flight: int
    limit: int  # calls that may be in flight now
    spent_usd: float | None  # by this ledger's entries, of all runs; None where the price is not known
    saved_usd: float  # what the answers found in the ledger cost when they were asked
    paused: str | None  # why nobody sends
