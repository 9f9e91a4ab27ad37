"""Asker: turns requests into ledger entries, by the scheduler, the Batch API, or the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.request import Request, request_key


class Asker(Protocol):
    """Gets the ledger entries of requests. Many callers may ask at once."""

    window: int  # requests that may wait at once; more callers than fill it gain nothing

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The entry of every request, in order: from the ledger if it is there, else by sending the request.

        An entry is returned only after its commit. None: the ledger has none and this asker sends nothing, or
        the request's media cannot be read (`SampleError`); then nothing is sent or recorded. Raises
        `RunError` or `KnowledgeBaseError` where the run cannot continue; answered requests are kept.
        """
        ...


@runtime_checkable
class Listener(Protocol):
    """An `Asker` that needs to know when all its callers are waiting."""

    def more_may_come(self, coming: bool) -> None:
        """Say whether more may be asked before any of the current requests has its entry.

        Callers that never call this are assumed to ask everything at once.
        """
        ...


class LedgerOnly:
    """An `Asker` that sends nothing: for parsing and judging stored answers again."""

    window = 100_000

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The ledger's entries; None for requests that were never answered."""
        return [self._ledger.get(request_key(request)) for request in requests]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run: `answered` and `failed` count its own requests, `from_ledger` those known before."""

    answered: int
    from_ledger: int
    failed: int
    in_flight: int
    limit: int  # calls that may be in flight now
    spent_usd: float | None  # by all runs of this ledger; None where the price is not known
    saved_usd: float  # the former cost of the answers found in the ledger
    paused: str | None  # why nothing is sent
