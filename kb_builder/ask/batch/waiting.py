"""The requests of a batch run that have no entry yet, and the calls of `ask` that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kb_builder.ask.batch.jobs import BatchItem
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request, request_from_json


@dataclass(eq=False)
class WaitingCall:
    """One call of `ask`: the keys that it still lacks, and the entries that it has."""

    lacks: set[str]
    entries: dict[str, Entry]
    done: asyncio.Event = field(default_factory=asyncio.Event)


class RequestQueue:
    """Requests by key: `queued` for the next file, in the order of asking, or in a job (`in_jobs`).

    `file_requests` is the size of a file: it shrinks where the server's queue is short. `room` is set while
    another file may be submitted.
    """

    def __init__(self, *, file_requests: int) -> None:
        self.queued: dict[str, Request] = {}
        self.in_jobs: set[str] = set()
        self.file_requests = file_requests
        self.room = asyncio.Event()
        self.room.set()
        self._calls: dict[str, list[WaitingCall]] = {}
        self._changed = asyncio.Event()
        self._last_change = 0.0  # loop time

    def add(self, missing: Mapping[str, Request], entries: dict[str, Entry]) -> WaitingCall:
        """Register a call that waits for `missing`; `entries` are those that it has already."""
        call = WaitingCall(set(missing), entries)
        for key, request in missing.items():
            self._calls.setdefault(key, []).append(call)
            if key not in self.in_jobs:
                self.queued[key] = request
        return call

    def adopt(self, keys: Iterable[str]) -> None:
        """Take over the requests of a job of an earlier run: they are not queued again."""
        for key in keys:
            self.in_jobs.add(key)
            self.queued.pop(key, None)

    def put_back(self, items: Iterable[BatchItem]) -> None:
        """A job ended without an entry for these: those that a call waits for are queued again."""
        for item in items:
            self.in_jobs.discard(item.key)
            if item.key in self._calls:
                self.queued[item.key] = request_from_json(item.request)

    def deliver(self, key: str, entry: Entry | None) -> None:
        """Give a request's entry to the calls that wait for it; None: it will have no entry."""
        self.in_jobs.discard(key)
        for call in self._calls.pop(key, ()):
            if entry is not None:
                call.entries[key] = entry
            call.lacks.discard(key)
            if not call.lacks:
                call.done.set()

    def release_calls(self) -> None:
        """End every waiting call: the run has failed."""
        for calls in self._calls.values():
            for call in calls:
                call.done.set()

    def changed(self) -> None:
        """Restart the pause that `wait_for_file` waits for."""
        self._last_change = asyncio.get_running_loop().time()
        self._changed.set()

    async def wait_for_file(self, quiet_s: float) -> None:
        """Wait until a file is full, or something is queued and nothing was added for `quiet_s` seconds."""
        clock = asyncio.get_running_loop().time
        while len(self.queued) < self.file_requests:
            rest = self._last_change + quiet_s - clock() if self.queued else None
            if rest is not None and rest <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(rest):
                    await self._changed.wait()
            except TimeoutError:
                continue
