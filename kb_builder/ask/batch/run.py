"""State that the parts of a batch run share, and the two steps that all of them end in: record and end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch.api import BatchApi, file_name
from kb_builder.ask.batch.jobs import BatchItem, Job
from kb_builder.ask.batch.progress import BatchProgress
from kb_builder.ask.batch.purse import BatchPurse
from kb_builder.ask.batch.waiting import RequestQueue
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.ledger import Entry, Ledger, new_entry

CHUNK = 500  # entries recorded together


@dataclass(frozen=True)
class Pace:
    """The limits of a batch, and how long to wait for what. Tests shorten the times."""

    file_requests: int = 50_000  # OpenAI's limits
    file_bytes: int = 200_000_000
    window: int = 200_000
    rounds: int = 3  # jobs that may end without an answer to a request before the request fails for good
    quiet_s: float = 15.0  # without a new request for so long, all callers wait: submit what is queued
    poll_s: float = 5.0  # the first pause between two polls of a batch; later ones are longer ...
    longest_poll_s: float = 60.0  # ... up to this
    settle_s: float = 5.0  # until a batch that was created just before a crash is in the server's list
    first_pause_s: float = 0.5


@dataclass(frozen=True, eq=False)
class BatchRun:
    """One run of one asker. `folder` holds its files while they are written, sent and read."""

    folder: Path
    ledger: Ledger
    client: ChatClient
    api: BatchApi
    pace: Pace
    run_id: str
    queue: RequestQueue
    purse: BatchPurse
    progress: BatchProgress

    def path(self, job: Job) -> Path:
        """Where a job's file is written."""
        return self.folder / file_name(job)

    def entry(self, item: BatchItem, *, answer: str | None = None, error: str | None = None) -> Entry:
        """The entry of a request that was answered or failed for good."""
        return new_entry(
            item.request,
            provider=self.client.provider,
            source="batch",
            run_id=self.run_id,
            attempts=item.deaths + 1,
            latency_ms=0.0,  # a batch reports none
            answer=answer,
            error=error,
            cost_usd=None if answer is None else self.purse.cost(answer),
        )

    async def record(self, entries: Sequence[Entry], *, known: Collection[str] = ()) -> None:
        """Commit entries and give them to their callers. Those whose key is in `known` are committed."""
        for start in range(0, len(entries), CHUNK):
            await self._record_chunk(entries[start : start + CHUNK], known)

    async def _record_chunk(self, entries: Sequence[Entry], known: Collection[str]) -> None:
        new = [entry for entry in entries if entry.key not in known]
        commits = [self.ledger.submit(entry) for entry in new]
        self.ledger.flush()
        await asyncio.gather(*commits)
        await batch_jobs.settle(self.ledger, [entry.key for entry in entries])
        for entry in entries:
            self.queue.deliver(entry.key, entry)
        self.purse.spend(new)
        failed = sum(entry.answer is None for entry in new)
        self.progress.failed += failed
        self.progress.answered += len(new) - failed
        self.progress.report()

    async def end(self, job: Job, *, died: bool) -> None:
        """Close a job. Its requests without an entry are queued again where a caller waits for them.

        `died` counts the end against those requests (`Pace.rounds`).
        """
        left = batch_jobs.items(self.ledger, job.token)
        await batch_jobs.end(self.ledger, job, died=died)
        self.purse.release(job)
        self.queue.put_back(left)
        self.queue.room.set()
        self.queue.changed()
        self.progress.report()
