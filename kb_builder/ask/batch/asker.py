"""The Batch API as an `Asker`: cheaper, up to a day later, over the same ledger.

    callers ──ask──> RequestQueue ──collect.py──> file, job ──> server ──follow.py──> ledger ──> callers

Requests of all callers are collected until a file is full or no new one is asked; then all callers wait for
answers. A job is in the ledger before its file is uploaded (kb_builder/ask/batch/jobs.py), so a run that was
killed at any point continues with the submitted jobs and submits no request twice.

The deadline of a request (`request_timeout_s`) does not apply here: a batch may take a day.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kb_builder.ask.asker import Progress
from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch.api import BatchApi
from kb_builder.ask.batch.collect import plan_next, submit
from kb_builder.ask.batch.follow import JobFollower
from kb_builder.ask.batch.jobs import SUBMITTED
from kb_builder.ask.batch.progress import BatchProgress
from kb_builder.ask.batch.purse import BatchPurse
from kb_builder.ask.batch.run import BatchRun, Pace
from kb_builder.ask.batch.waiting import RequestQueue
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.ledger import Entry, Ledger
from kb_builder.ask.request import Request, request_json, request_key
from kb_builder.ask.reuse import reused
from kb_builder.settings import Asking


@asynccontextmanager
async def open_batch_asker(
    kb: Path,
    ledger: Ledger,
    client: ChatClient,
    *,
    settings: Asking,
    run_id: str,
    on_progress: Callable[[Progress], None] | None = None,
    pace: Pace | None = None,
) -> AsyncIterator[BatchAsker]:
    """An `Asker` that submits batches through `client` and records their results in `ledger`.

    Nothing is opened or sent before a request is asked that the ledger lacks. Jobs that have not ended when
    the block ends stay at the server; the next asker of this knowledge base and endpoint continues with them.
    Raises `ProjectError` where a budget is set and the price is not known.
    """
    pace = pace or Pace()
    purse = BatchPurse(client, ledger, settings)
    queue = RequestQueue(file_requests=pace.file_requests)
    progress = BatchProgress(
        client,
        limit=pace.window,
        in_flight=lambda: len(queue.in_jobs),
        spent_usd=lambda: None if purse.price is None else ledger.spent(),
        on_progress=on_progress,
    )
    api = BatchApi(
        client,
        outage_s=settings.outage_s,
        call_s=settings.request_timeout_s,
        most_bytes=int(settings.max_answer_mb * 1_000_000),
        first_pause_s=pace.first_pause_s,
        on_pause=progress.pause,
    )
    run = BatchRun(kb / "batches", ledger, client, api, pace, run_id, queue, purse, progress)
    asker = BatchAsker(run, reuse=settings.reuse)
    await batch_jobs.create_tables(ledger)
    try:
        yield asker
    finally:
        await asker.close()


class BatchAsker:
    """See `open_batch_asker`."""

    def __init__(self, run: BatchRun, *, reuse: bool) -> None:
        self.window = run.pace.window
        self._run = run
        self._reuse = reuse
        self._follower = JobFollower(run)
        self._worker: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The entry of every request, in order; see `Asker.ask`. None: its media cannot be read."""
        if self._reason is not None:
            raise self._reason
        run = self._run
        keys = [request_key(request) for request in requests]
        entries = run.ledger.get_many(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in entries}
        if self._reuse:
            entries |= await self._record_reused(missing.values())
            missing = {key: request for key, request in missing.items() if key not in entries}
        run.progress.from_ledger += len(entries)
        run.progress.saved_usd += sum(entry.cost_usd or 0.0 for entry in entries.values())
        if missing:
            call = run.queue.add(missing, entries)
            run.queue.changed()
            self._start()
            await call.done.wait()
            if call.lacks and self._reason is not None:
                raise self._reason
        return [entries.get(key) for key in keys]

    async def close(self) -> None:
        """Stop waiting. Submitted jobs stay submitted; results that are being read are recorded first."""
        if self._worker is not None:
            await self._follower.settled.wait()
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._run.progress.report()
        shutil.rmtree(self._run.folder, ignore_errors=True)

    async def _record_reused(self, requests: Iterable[Request]) -> dict[str, Entry]:
        """Entries with the answers to the same requests of fewer max_tokens, once they are committed."""
        ledger, run_id = self._run.ledger, self._run.run_id
        found = [reused(ledger, request_json(request), run_id=run_id) for request in requests]
        entries = {entry.key: entry for entry in found if entry is not None}
        commits = [ledger.submit(entry) for entry in entries.values()]
        ledger.flush()
        await asyncio.gather(*commits)
        return entries

    def _start(self) -> None:
        if self._worker is not None:
            return
        run = self._run
        shutil.rmtree(run.folder, ignore_errors=True)  # files that a killed run left
        for job in batch_jobs.unfinished(run.ledger, run.client.endpoint):
            run.queue.adopt(batch_jobs.keys(run.ledger, job.token))
        self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Continue with the jobs of earlier runs, then make new ones of what is asked."""
        run = self._run
        try:
            async with asyncio.TaskGroup() as tasks:
                unfinished = batch_jobs.unfinished(run.ledger, run.client.endpoint)
                for job in sorted(unfinished, key=lambda job: job.state != SUBMITTED):  # stable
                    run.purse.reserve(job)
                    submitted = await submit(run, job, resumed=True)
                    if submitted is not None:
                        self._follower.start(submitted, tasks)
                while True:
                    await run.queue.wait_for_file(run.pace.quiet_s)
                    await run.queue.room.wait()
                    planned = await plan_next(run)
                    if planned is not None:
                        submitted = await submit(run, planned, resumed=False)
                        if submitted is not None:
                            self._follower.start(submitted, tasks)
        except asyncio.CancelledError:
            raise
        except BaseExceptionGroup as group:
            self._stop(group.exceptions[0])
        except Exception as error:
            self._stop(error)

    def _stop(self, reason: BaseException) -> None:
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
        self._reason = reason if isinstance(reason, Exception) else RuntimeError(repr(reason))
        self._follower.settled.set()
        self._run.queue.release_calls()
