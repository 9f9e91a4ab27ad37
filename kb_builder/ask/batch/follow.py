"""Follow submitted jobs until they end, and record their results.

Results become entries of the ledger. A request that expired or failed on the way is submitted again, in
`Pace.rounds` jobs at most, and then fails for good with its reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from data.errors import RequestError, RunError, ThrottledError, TransientError
from data.show import shorten
from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch import run as batch_run
from kb_builder.ask.batch.files import read_lines, read_result
from kb_builder.ask.batch.jobs import DEAD, DONE, BatchItem, Job
from kb_builder.ask.batch.progress import end_line
from kb_builder.ask.batch.run import BatchRun
from kb_builder.ask.endpoint.status import error_for
from kb_builder.ask.ledger import microseconds_now
from kb_builder.ask.scheduler import ALL_REFUSED

if TYPE_CHECKING:
    from openai.types import Batch

log = logging.getLogger(__name__)

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_SAMPLED = 100  # refusals that are compared with earlier answers
_KEPT_S = 30 * 86_400  # the server keeps batches and files for about this long


class JobFollower:
    """Follows any number of jobs at once; `settled` is set while no results are being recorded."""

    def __init__(self, run: BatchRun) -> None:
        self._run = run
        self._following = 0  # submitted jobs that have not ended
        self._recording = 0  # jobs whose results are being recorded
        self.settled = asyncio.Event()
        self.settled.set()
        self._invalid_files = 0  # in a row, refused by the server's validation

    def start(self, job: Job, tasks: asyncio.TaskGroup) -> None:
        """Follow a submitted job in a task. What must end the run is raised there."""
        self._following += 1
        tasks.create_task(self._follow(job))

    async def _follow(self, job: Job) -> None:
        run = self._run
        batch_id = job.batch_id or ""
        batch = await self._wait_for_end(batch_id)
        if batch is not None:
            run.progress.say(end_line(batch, job))
        self._following -= 1
        run.progress.at_server.pop(batch_id, None)
        run.queue.room.set()
        run.progress.pause(None)
        self._recording += 1
        self.settled.clear()
        if batch is None:
            await self._lost(job, f"batch {batch_id} is not known to {job.endpoint}")
        elif batch.status == "failed":
            await self._file_refused(job, batch)
        else:
            await self._record_results(job, batch)
        self._recording -= 1
        if not self._recording:
            self.settled.set()

    async def _wait_for_end(self, batch_id: str) -> Batch | None:
        """Poll a batch until it has ended; None where the server does not know it."""
        run = self._run
        pause = run.pace.poll_s
        while True:
            batch = await run.api.retrieve(batch_id)
            if batch is None or batch.status in _ENDED:
                return batch
            run.progress.at_server[batch_id] = batch
            run.progress.report()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, run.pace.longest_poll_s)

    async def _lost(self, job: Job, what: str) -> None:
        """A batch, or its results, are not on the server: expected after a month, an error before."""
        if microseconds_now() / 1e6 - job.created_at / 1e6 < _KEPT_S:
            raise RunError(
                f"{what}; use the API key of the project that submitted it. If it is gone for good, "
                'run with submit = "online": its requests are asked again'
            )
        log.warning("%s any longer; its requests are submitted again", what)
        await self._run.end(replace(job, state=DEAD, said=what), died=False)

    async def _record_results(self, job: Job, batch: Batch) -> None:
        run = self._run
        self._invalid_files = 0
        died: dict[str, str] = {}
        refused: list[tuple[BatchItem, str]] = []
        fatal: RunError | None = None
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            path = run.path(job).with_suffix(".results")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not await run.api.download(file_id, path, requests=job.requests):
                await self._lost(job, f"the results of batch {batch.id} are not on the server")
                return
            with path.open("rb") as file:
                while lines := list(islice(file, batch_run.CHUNK)):
                    fatal = await self._record_lines(job, lines, died, refused) or fatal
            path.unlink()
        fatal = await self._record_refused(refused) or fatal
        left = len(batch_jobs.keys(run.ledger, job.token))
        cancelled = batch.status == "cancelled"
        if fatal is None and not cancelled:
            await self._give_up(
                job, died, f"batch {batch.id} ended as {batch.status} without an answer to it"
            )
        done = replace(job, state=DONE, said=batch.status)
        await run.end(done, died=fatal is None and not cancelled)
        if fatal is not None:
            raise fatal
        if cancelled:
            raise RunError(
                f"batch {batch.id} was cancelled; its answers so far are kept, {left} of its {job.requests} "
                "requests have none; run again to submit those"
            )

    async def _record_lines(
        self, job: Job, lines: Iterable[bytes], died: dict[str, str], refused: list[tuple[BatchItem, str]]
    ) -> RunError | None:
        """Record some answers; adds transient failures to `died` and refusals to `refused`.

        Returns the error that must end the run, if there is one.
        """
        run = self._run
        results = dict(read_lines(lines))
        items = batch_jobs.find(run.ledger, job.token, list(results))
        known = run.ledger.get_many(list(items))  # recorded, but not settled before the run was killed
        entries = list(known.values())
        fatal: RunError | None = None
        for key, item in items.items():
            if key in known:
                continue
            try:
                read = read_result(results[key], where=f"batch {job.batch_id}", remedy=run.client.remedy)
                entries.append(run.entry(item, answer=run.client.hide(read)))
            except (TransientError, ThrottledError) as error:
                died[key] = run.client.hide(str(error))
            except RequestError as error:
                refused.append((item, run.client.hide(str(error))))
            except RunError as error:
                fatal = RunError(run.client.hide(str(error)))
        await run.record(entries, known=known.keys())
        return fatal

    async def _record_refused(self, refused: Sequence[tuple[BatchItem, str]]) -> RunError | None:
        """Record refusals if requests like them were answered; else return the error that ends the run."""
        if not refused:
            return None
        if not self._answered_like(item for item, _ in refused[:_SAMPLED]):
            which = "the only request was" if len(refused) == 1 else f"all {len(refused):,} requests were"
            return RunError(f"{which} refused, the last with: {refused[-1][1]}; {ALL_REFUSED}")
        await self._run.record([self._run.entry(item, error=error) for item, error in refused])
        return None

    def _answered_like(self, items: Iterable[BatchItem]) -> bool:
        """Whether requests like all of these were answered, in this run or by the ledger."""
        run = self._run
        return bool(run.progress.answered) or all(run.ledger.answered_like(item.request) for item in items)

    async def _file_refused(self, job: Job, batch: Batch) -> None:
        """The server's validation refused a whole file; none of its requests was processed."""
        run = self._run
        errors = (batch.errors and batch.errors.data) or []
        words = "; ".join(
            f"{f'line {error.line}: ' if error.line else ''}{error.message or error.code}"
            for error in errors[:3]
        )
        said = shorten(run.client.hide(f"batch {batch.id} was refused: {words or 'no reason given'}"))
        dead = replace(job, state=DEAD, said=said)
        if any("token_limit" in str(error.code) for error in errors):
            await run.end(dead, died=False)
            self._make_room(job, said)
            return
        lines = {
            error.line: str(error.message or error.code) for error in errors if isinstance(error.line, int)
        }
        bad = batch_jobs.at_lines(run.ledger, job.token, lines)
        self._invalid_files += 1
        causes = [error_for(400, said, code=str(error.code or "")) for error in errors]
        hopeless = (
            not bad
            or (len(bad) == job.requests and (job.requests > 1 or not self._answered_like(bad.values())))
            or self._invalid_files > run.pace.rounds
        )
        if hopeless or any(isinstance(cause, RunError) for cause in causes):
            await run.end(dead, died=False)
            raise RunError(f"{said}; correct the settings, then run again: nothing in this file was paid for")
        await run.record(
            [
                run.entry(item, error=run.client.hide(f"refused by the batch's validation: {lines[line]}"))
                for line, item in bad.items()
            ]
        )
        await run.end(dead, died=False)

    def _make_room(self, job: Job, said: str) -> None:
        """The server's queue is full: wait until one of our jobs ends, or make smaller files."""
        queue = self._run.queue
        if self._following:
            queue.room.clear()
            self._run.progress.pause(said)
            return
        if job.requests == 1:
            raise RunError(f"{said}; not even one request fits: raise the account's limits, then run again")
        queue.file_requests = max(1, job.requests // 2)
        log.warning("%s; continuing with files of %d requests", said, queue.file_requests)

    async def _give_up(self, job: Job, died: Mapping[str, str], otherwise: str) -> None:
        """Record as failed the requests that `Pace.rounds` jobs have left without an answer."""
        run = self._run
        await run.record(
            [
                run.entry(item, error=f"{died.get(item.key, otherwise)} (in {item.deaths + 1} batches)")
                for item in batch_jobs.items(run.ledger, job.token)
                if item.deaths + 1 >= run.pace.rounds
            ]
        )
