"""The Batch API as an `Asker`: cheaper, up to a day later, over the same ledger.

Requests of all callers are collected until a file is full or nobody asks any more; then all callers wait for
answers. A job is in the ledger before its file is uploaded (kb_builder/ask/batch/jobs.py), so a run that was
killed at any point goes on with the jobs that are under way and submits no request twice. Results become
entries of the ledger; what expired or failed on the way is submitted again alone, a few times, and then fails
for good with its reason.

The deadline of a request (`request_timeout_s`) does not hold here: a batch may take a day.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import (
    RequestError,
    RunError,
    ThrottledError,
    TransientError,
)
from data.show import shorten
from kb_builder.ask.asker import Progress
from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch.api import BatchApi, file_name
from kb_builder.ask.batch.files import BatchFile, read_lines, read_result, write_file
from kb_builder.ask.batch.jobs import DEAD, DONE, PLANNED, SUBMITTED, UPLOADED, BatchItem, Job
from kb_builder.ask.budget import Budget, booked_cost, bounded_worst_case, open_budget
from kb_builder.ask.cost import cost, usage_of, worst_case
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.endpoint.status import error_for
from kb_builder.ask.ledger import Entry, Ledger, microseconds_now, new_entry, reused
from kb_builder.ask.policy import policy_for
from kb_builder.ask.request import Request, request_from_json, request_json, request_key
from kb_builder.ask.scheduler import ALL_REFUSED
from kb_builder.settings import Asking

if TYPE_CHECKING:
    from openai.types import Batch

log = logging.getLogger(__name__)

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_NO_HURRY = "this may take up to a day: stop the command and run it again whenever you like"
_SOME = 100  # refusals that are looked at to find whose fault they are
_CHUNK = 500  # results recorded together
_A_HAIR = 1e-9  # US dollars: sums of floats
_KEPT_S = 30 * 86_400  # the server keeps batches and files for about so long


@dataclass(frozen=True)
class Pace:
    """The limits of a batch, and how long to wait for what. Tests make it fast."""

    file_requests: int = 50_000  # OpenAI's limits
    file_bytes: int = 200_000_000
    window: int = 200_000
    rounds: int = 3  # jobs that may end without an answer to a request before it fails for good
    quiet_s: float = 15.0  # nobody has asked for so long: all callers wait, so what is there is submitted
    poll_s: float = 5.0  # the first pause between two looks at a batch; the next are longer ...
    longest_poll_s: float = 60.0  # ... up to this
    settle_s: float = 5.0  # until a batch that was made just before a crash shows in the server's list
    first_pause_s: float = 0.5


@dataclass(eq=False)
class _Waiting:
    """One call of `ask`: what it still lacks, and what came."""

    lacks: set[str]
    entries: dict[str, Entry]
    done: asyncio.Event = field(default_factory=asyncio.Event)


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

    Nothing is opened or sent before a request is asked that the ledger lacks. Jobs that are under way when
    the block ends stay under way, and the next asker of this knowledge base and endpoint goes on with them.
    Raises `ProjectError` where a budget is set and the price is not known.
    """
    asker = BatchAsker(
        kb / "batches", ledger, client, settings, run_id=run_id, on_progress=on_progress, pace=pace or Pace()
    )
    await batch_jobs.create_tables(ledger)
    try:
        yield asker
    finally:
        await asker.close()


class BatchAsker:
    """See `open_batch_asker`."""

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        client: ChatClient,
        settings: Asking,
        *,
        run_id: str,
        on_progress: Callable[[Progress], None] | None,
        pace: Pace,
    ) -> None:
        self.window = pace.window
        self._folder = folder
        self._ledger = ledger
        self._client = client
        self._run_id = run_id
        self._pace = pace
        self._api = BatchApi(
            client,
            outage_s=settings.outage_s,
            call_s=settings.request_timeout_s,
            most_bytes=int(settings.max_answer_mb * 1_000_000),
            first_pause_s=pace.first_pause_s,
            on_pause=self._pause,
        )
        self._purse = _Purse(client, ledger, settings)
        self._reuse = settings.reuse
        self._queue: dict[str, Request] = {}  # asked for and in no job, in order
        self._in_flight: set[str] = set()  # in a job
        self._waits: dict[str, list[_Waiting]] = {}
        self._asked = asyncio.Event()
        self._last_ask = 0.0  # loop time
        self._room = asyncio.Event()  # the server's queue may take another file
        self._room.set()
        self._following = 0  # submitted jobs that have not ended
        self._at_server: dict[str, Batch] = {}  # those, by id, as they were when last looked at
        self._ending = 0  # jobs whose results are being taken in
        self._settled = asyncio.Event()  # there are none of those, and will be none
        self._settled.set()
        self._most = pace.file_requests  # requests per file: fewer where the server's queue is short
        self._invalid = 0  # files in a row that the server's validation refused
        self._worker: asyncio.Task[None] | None = None
        self._reason: Exception | None = None
        self._on_progress = on_progress
        self._paused: str | None = None
        self._answered = self._from_ledger = self._failed = 0
        self._saved = 0.0

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The entry of every request, in order; see `Asker.ask`. None: its media cannot be read."""
        if self._reason is not None:
            raise self._reason
        keys = [request_key(request) for request in requests]
        entries = self._ledger.get_many(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in entries}
        if self._reuse:
            entries |= await self._reused(missing.values())
            missing = {key: request for key, request in missing.items() if key not in entries}
        self._from_ledger += len(entries)
        self._saved += sum(entry.cost_usd or 0.0 for entry in entries.values())
        if missing:
            waiting = _Waiting(set(missing), entries)
            for key, request in missing.items():
                self._waits.setdefault(key, []).append(waiting)
                if key not in self._in_flight:
                    self._queue[key] = request
            self._wake()
            await waiting.done.wait()
            if waiting.lacks and self._reason is not None:
                raise self._reason
        return [entries.get(key) for key in keys]

    async def _reused(self, requests: Iterable[Request]) -> dict[str, Entry]:
        found = [reused(self._ledger, request_json(request), run_id=self._run_id) for request in requests]
        entries = {entry.key: entry for entry in found if entry is not None}
        commits = [self._ledger.submit(entry) for entry in entries.values()]
        self._ledger.flush()
        await asyncio.gather(*commits)
        return entries

    async def close(self) -> None:
        """Stop waiting. Jobs that are under way stay so; results that are coming in are recorded first."""
        if self._worker is not None:
            await self._settled.wait()
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._report()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wake(self) -> None:
        self._last_ask = asyncio.get_running_loop().time()
        self._asked.set()
        if self._worker is None:
            shutil.rmtree(self._folder, ignore_errors=True)  # files that a killed run left
            for job in batch_jobs.unfinished(self._ledger, self._client.endpoint):
                self._in_flight.update(batch_jobs.keys(self._ledger, job.token))
            for key in self._in_flight & self._queue.keys():
                del self._queue[key]
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Go on with the jobs that are under way, then make new ones for what is asked."""
        try:
            async with asyncio.TaskGroup() as tasks:
                jobs = batch_jobs.unfinished(self._ledger, self._client.endpoint)
                for job in sorted(jobs, key=lambda job: job.state != SUBMITTED):  # stable
                    self._purse.reserve(job)
                    await self._submit(job, tasks, resumed=True)
                while True:
                    await self._quiet()
                    await self._room.wait()
                    await self._cut(tasks)
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
        self._settled.set()
        for waits in self._waits.values():
            for waiting in waits:
                waiting.done.set()

    async def _quiet(self) -> None:
        """Wait until a file is full, or somebody has asked and nobody asks any more."""
        clock = asyncio.get_running_loop().time
        while len(self._queue) < self._most:
            rest = self._last_ask + self._pace.quiet_s - clock() if self._queue else None
            if rest is not None and rest <= 0:
                return
            self._asked.clear()
            try:
                async with asyncio.timeout(rest):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _cut(self, tasks: asyncio.TaskGroup) -> None:
        """Make the next file and its job, and submit it."""
        job = Job(
            token=secrets.token_hex(16),
            endpoint=self._client.endpoint,
            state=PLANNED,
            requests=0,
            bytes=0,
            file_id=None,
            batch_id=None,
            reserved_usd=None,
            said=None,
            run_id=self._run_id,
            created_at=microseconds_now(),
        )
        taken = self._affordable()
        if not taken:
            return
        file = await asyncio.to_thread(self._write, job, taken)
        refused = [
            self._entry(BatchItem(key, request_json(request), 0), error=file.refused[key])
            for key, request in taken
            if key in file.refused
        ]
        kept = frozenset(file.keys)
        written = {key: request for key, request in taken if key in kept}
        for key in (*file.keys, *file.refused, *file.unreadable):
            del self._queue[key]
        for key in file.unreadable:
            self._bring(key, None)
        await self._record(refused)
        if not written:
            return
        job = replace(
            job,
            requests=len(written),
            bytes=file.bytes,
            reserved_usd=self._purse.worst_case(written.values()),
        )
        self._purse.reserve(job)
        await batch_jobs.plan(
            self._ledger, job, [(key, request_json(request)) for key, request in written.items()]
        )
        self._in_flight.update(written)
        await self._submit(job, tasks, resumed=False)

    def _affordable(self) -> list[tuple[str, Request]]:
        """The next requests that fit into a file and into the budget, as many as there are."""
        taken: list[tuple[str, Request]] = []
        room = self._purse.room()
        for key, request in islice(self._queue.items(), self._most):
            worst = self._purse.bound(request)
            room -= worst
            if room < 0:
                if not taken and not self._purse.holds:
                    raise self._purse.used_up(worst)
                if not taken:
                    self._room.clear()  # what is in flight will cost less than its worst case
                break
            taken.append((key, request))
        return taken

    def _write(self, job: Job, requests: Iterable[tuple[str, Request]]) -> BatchFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        return write_file(self._path(job), requests, self._client.body_for, most_bytes=self._pace.file_bytes)

    def _path(self, job: Job) -> Path:
        return self._folder / file_name(job)

    async def _submit(self, job: Job, tasks: asyncio.TaskGroup, *, resumed: bool) -> None:
        """Bring a job from whatever state it is in to the server, and follow it there."""
        if job.state == UPLOADED:
            batch = await self._find_batch(job)
            if batch is not None:
                job = await self._update(job, state=SUBMITTED, batch_id=batch.id)
            elif not await self._api.has_file(job.file_id or ""):
                job = await self._update(job, state=PLANNED, file_id=None)
        if job.state == PLANNED:
            file_id = await self._upload(job, resumed=resumed)
            if file_id is None:
                await self._end(replace(job, state=DEAD, said="some of its media are gone"), died=False)
                return
            job = await self._update(job, state=UPLOADED, file_id=file_id)
        self._path(job).unlink(missing_ok=True)
        if job.state == UPLOADED:
            batch = await self._api.create(job)
            job = await self._update(job, state=SUBMITTED, batch_id=batch.id)
            self._say(f"batch {batch.id} submitted: {job.requests:,} requests; {_NO_HURRY}")
        else:
            self._say(f"batch {job.batch_id} was submitted before: {job.requests:,} requests; {_NO_HURRY}")
        self._following += 1
        tasks.create_task(self._follow(job))

    async def _upload(self, job: Job, *, resumed: bool) -> str | None:
        """The id of the uploaded file; None where the file of a killed run cannot be written again."""
        found = await self._api.find_file(job) if resumed else None
        if found is not None:
            return found
        if resumed:  # the killed run's file is gone; the same requests give the same file
            items = batch_jobs.items(self._ledger, job.token)
            requests = ((item.key, request_from_json(item.request)) for item in items)
            file = await asyncio.to_thread(self._write, job, requests)
            if len(file.keys) < job.requests:
                return None
            job = replace(job, bytes=file.bytes)
        return await self._api.upload(job, self._path(job))

    async def _find_batch(self, job: Job) -> Batch | None:
        """The batch of a job whose run was killed while it was being made."""
        batch = await self._api.find_batch(job)
        if batch is None:
            await asyncio.sleep(self._pace.settle_s)
            batch = await self._api.find_batch(job)
        return batch

    async def _update(self, job: Job, **changes: Any) -> Job:
        job = replace(job, **changes)
        await batch_jobs.update(self._ledger, job)
        return job

    async def _follow(self, job: Job) -> None:
        """Look at a batch until it has ended, then take its results in."""
        pause = self._pace.poll_s
        batch_id = job.batch_id or ""
        while True:
            batch = await self._api.retrieve(batch_id)
            if batch is None or batch.status in _ENDED:
                break
            self._at_server[batch_id] = batch
            self._report()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, self._pace.longest_poll_s)
        if batch is not None:
            self._say(_told_end(batch, job))
        self._following -= 1
        self._at_server.pop(batch_id, None)
        self._room.set()
        self._pause(None)
        self._ending += 1
        self._settled.clear()
        if batch is None:
            await self._lost(job, f"batch {batch_id} is not known to {job.endpoint}")
        else:
            await self._take_in(job, batch)
        self._ending -= 1
        if not self._ending:
            self._settled.set()

    async def _lost(self, job: Job, what: str) -> None:
        """A batch, or its results, are not on the server. After a month that is usual; before, it is not."""
        if microseconds_now() / 1e6 - job.created_at / 1e6 < _KEPT_S:
            raise RunError(
                f"{what}; use the API key of the project that submitted it. If it is gone for good, "
                'run with submit = "online": its requests are asked again'
            )
        log.warning("%s any more; its requests are submitted again", what)
        await self._end(replace(job, state=DEAD, said=what), died=False)

    async def _take_in(self, job: Job, batch: Batch) -> None:
        said = batch.status
        if said == "failed":
            await self._refused(job, batch)
            return
        self._invalid = 0
        died: dict[str, str] = {}
        refused: list[tuple[BatchItem, str]] = []
        fatal: RunError | None = None
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            path = self._path(job).with_suffix(".results")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not await self._api.download(file_id, path, requests=job.requests):
                await self._lost(job, f"the results of batch {batch.id} are not on the server")
                return
            with path.open("rb") as file:
                while lines := list(islice(file, _CHUNK)):
                    fatal = await self._take_in_lines(job, lines, died, refused) or fatal
            path.unlink()
        fatal = await self._take_in_refused(refused) or fatal
        left = len(batch_jobs.keys(self._ledger, job.token))
        if fatal is None and said != "cancelled":
            await self._give_up(job, died, f"batch {batch.id} ended as {said} without an answer to it")
        await self._end(replace(job, state=DONE, said=said), died=fatal is None and said != "cancelled")
        if fatal is not None:
            raise fatal
        if said == "cancelled":
            raise RunError(
                f"batch {batch.id} was cancelled; its answers so far are kept, {left} of its {job.requests} "
                "requests have none; run again to submit those"
            )

    async def _take_in_lines(
        self, job: Job, lines: Iterable[bytes], died: dict[str, str], refused: list[tuple[BatchItem, str]]
    ) -> RunError | None:
        """Record some answers. What died on the way is noted in `died`, what was refused in `refused`.

        Returns what should end the run.
        """
        results = dict(read_lines(lines))
        items = batch_jobs.find(self._ledger, job.token, list(results))
        known = self._ledger.get_many(list(items))  # recorded, and not yet settled when the run was killed
        entries = list(known.values())
        fatal: RunError | None = None
        for key, item in items.items():
            if key in known:
                continue
            try:
                read = read_result(results[key], where=f"batch {job.batch_id}", remedy=self._client.remedy)
                entries.append(self._entry(item, answer=self._client.hide(read)))
            except (TransientError, ThrottledError) as error:
                died[key] = self._client.hide(str(error))
            except RequestError as error:
                refused.append((item, self._client.hide(str(error))))
            except RunError as error:
                fatal = RunError(self._client.hide(str(error)))
        await self._record(entries, known=known.keys())
        return fatal

    async def _take_in_refused(self, refused: Sequence[tuple[BatchItem, str]]) -> RunError | None:
        """Record refusals, where others like them were answered; else returns what should end the run."""
        if not refused:
            return None
        if not self._answered and not all(
            self._ledger.answered_like(item.request) for item, _ in refused[:_SOME]
        ):
            told = "the only request was" if len(refused) == 1 else f"all {len(refused):,} requests were"
            return RunError(f"{told} refused, the last with: {refused[-1][1]}; {ALL_REFUSED}")
        for start in range(0, len(refused), _CHUNK):
            some = refused[start : start + _CHUNK]
            await self._record([self._entry(item, error=error) for item, error in some])
        return None

    async def _refused(self, job: Job, batch: Batch) -> None:
        """The server refused a whole file, and worked on none of its requests."""
        errors = (batch.errors and batch.errors.data) or []
        words = "; ".join(
            f"{f'line {error.line}: ' if error.line else ''}{error.message or error.code}"
            for error in errors[:3]
        )
        said = shorten(self._client.hide(f"batch {batch.id} was refused: {words or 'no reason given'}"))
        dead = replace(job, state=DEAD, said=said)
        if any("token_limit" in str(error.code) for error in errors):
            await self._end(dead, died=False)
            self._make_room(job, said)
            return
        lines = {
            error.line: str(error.message or error.code) for error in errors if isinstance(error.line, int)
        }
        bad = batch_jobs.at_lines(self._ledger, job.token, lines)
        self._invalid += 1
        codes = [error_for(400, said, code=str(error.code or "")) for error in errors]
        none_answered = not self._answered and not all(
            self._ledger.answered_like(item.request) for item in bad.values()
        )
        hopeless = (
            not bad
            or (len(bad) == job.requests and (job.requests > 1 or none_answered))
            or self._invalid > self._pace.rounds
        )
        if hopeless or any(isinstance(code, RunError) for code in codes):
            await self._end(dead, died=False)
            raise RunError(f"{said}; mend the settings, then run again: nothing of it was paid for")
        await self._record(
            [
                self._entry(
                    item, error=self._client.hide(f"refused by the batch's validation: {lines[line]}")
                )
                for line, item in bad.items()
            ]
        )
        await self._end(dead, died=False)

    def _make_room(self, job: Job, said: str) -> None:
        """The server's queue is full: wait for one of our jobs to end, or make smaller files."""
        if self._following:
            self._room.clear()
            self._pause(said)
            return
        if job.requests == 1:
            raise RunError(f"{said}; not even one request fits: raise the account's limits, then run again")
        self._most = max(1, job.requests // 2)
        log.warning("%s; going on with files of %d requests", said, self._most)

    async def _give_up(self, job: Job, died: Mapping[str, str], otherwise: str) -> None:
        """Fail for good what has died in as many jobs as may be."""
        entries = [
            self._entry(item, error=f"{died.get(item.key, otherwise)} (in {item.deaths + 1} batches)")
            for item in batch_jobs.items(self._ledger, job.token)
            if item.deaths + 1 >= self._pace.rounds
        ]
        for start in range(0, len(entries), _CHUNK):
            await self._record(entries[start : start + _CHUNK])

    async def _end(self, job: Job, *, died: bool) -> None:
        """Close a job; what it leaves without an answer, and somebody waits for, is asked again."""
        left = batch_jobs.items(self._ledger, job.token)
        await batch_jobs.end(self._ledger, job, died=died)
        self._purse.release(job)
        for item in left:
            self._in_flight.discard(item.key)
            if item.key in self._waits:
                self._queue[item.key] = request_from_json(item.request)
        self._room.set()
        self._last_ask = asyncio.get_running_loop().time()
        self._asked.set()
        self._report()

    async def _record(self, entries: Sequence[Entry], *, known: Collection[str] = ()) -> None:
        """Commit entries (those in `known` are), and hand them to whoever waits for them."""
        if not entries:
            return
        new = [entry for entry in entries if entry.key not in known]
        commits = [self._ledger.submit(entry) for entry in new]
        self._ledger.flush()
        await asyncio.gather(*commits)
        await batch_jobs.settle(self._ledger, [entry.key for entry in entries])
        for entry in entries:
            self._in_flight.discard(entry.key)
            self._bring(entry.key, entry)
        self._purse.spend(new)
        failed = sum(entry.answer is None for entry in new)
        self._failed += failed
        self._answered += len(new) - failed
        self._report()

    def _bring(self, key: str, entry: Entry | None) -> None:
        """Hand an entry to whoever waits for it; None: there will be none."""
        for waiting in self._waits.pop(key, ()):
            if entry is not None:
                waiting.entries[key] = entry
            waiting.lacks.discard(key)
            if not waiting.lacks:
                waiting.done.set()

    def _entry(self, item: BatchItem, *, answer: str | None = None, error: str | None = None) -> Entry:
        return new_entry(
            item.request,
            provider=self._client.provider,
            source="batch",
            run_id=self._run_id,
            attempts=item.deaths + 1,
            latency_ms=0.0,  # a batch tells none
            answer=answer,
            error=error,
            cost_usd=None if answer is None else self._purse.cost(answer),
        )

    def _pause(self, reason: str | None) -> None:
        self._paused = reason
        self._report()

    def _say(self, text: str) -> None:
        """A line for whoever waits, on a terminal or in a file. The server's words are in it."""
        log.warning("%s", shorten(self._client.hide(text)))

    def _waits_for(self) -> str | None:
        """Why nothing comes: the server is away, or how the batches stand that it works on."""
        if self._paused is not None or not self._at_server:
            return self._paused
        batches = self._at_server.values()
        states = Counter(str(batch.status) for batch in batches)
        told = ", ".join(f"{count:,} {status}" for status, count in sorted(states.items()))
        answered, failed, total = map(sum, zip(*map(_counts, batches), strict=True))
        some = f", {answered + failed:,} of {total:,} requests done" if total else ""
        plural = "es" if len(batches) > 1 else ""
        text = f"waiting for {len(batches)} batch{plural} at the server ({told}){some}; {_NO_HURRY}"
        return shorten(self._client.hide(text))

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    answered=self._answered,
                    from_ledger=self._from_ledger,
                    failed=self._failed,
                    in_flight=len(self._in_flight),
                    limit=self.window,
                    spent_usd=self._ledger.spent() if self._purse.price is not None else None,
                    saved_usd=self._saved,
                    paused=self._waits_for(),
                )
            )


def _counts(batch: Batch) -> tuple[int, int, int]:
    """Requests answered, failed and all; zeros where the server does not tell."""
    answered, failed, total = (
        getattr(batch.request_counts, name, None) or 0 for name in ("completed", "failed", "total")
    )
    return answered, failed, total


def _told_end(batch: Batch, job: Job) -> str:
    answered, failed, total = _counts(batch)
    told = f" ({answered:,} answered, {failed:,} failed)" if total else ""
    return f"batch {batch.id} ended as {batch.status}: {job.requests:,} requests{told}"


class _Purse:
    """What batches cost, and the budget over them, if there is one."""

    def __init__(self, client: ChatClient, ledger: Ledger, settings: Asking) -> None:
        policy = policy_for(client, settings)
        self.price = policy.price
        self._budget: Budget | None = None
        if policy.budget_usd is not None and policy.price is not None:
            self._budget = open_budget(
                policy.budget_usd, policy.price, ledger, endpoint=client.endpoint, model=client.model
            )

    def room(self) -> float:
        """US dollars that may still be reserved."""
        return (
            math.inf
            if self._budget is None
            else self._budget.most - self._budget.spent - self._budget.reserved
        )

    @property
    def holds(self) -> bool:
        """Whether something is set aside for jobs under way."""
        return self._budget is not None and self._budget.reserved > _A_HAIR

    def bound(self, request: Request) -> float:
        """The most that a request can cost, where a budget asks for it; else 0."""
        if self._budget is None or self.price is None:
            return 0.0
        return bounded_worst_case(self.price, request, batch=True)

    def used_up(self, wanted: float) -> RunError:
        """What to say when not one request fits."""
        assert self._budget is not None
        return self._budget.used_up(wanted)

    def worst_case(self, requests: Iterable[Request]) -> float | None:
        """The most that a file can cost, or None where nothing is known."""
        if self.price is None:
            return None
        worst = [worst_case(self.price, request, batch=True) for request in requests]
        known = [each for each in worst if each is not None]
        return sum(known) if len(known) == len(worst) else None

    def cost(self, answer: str) -> float | None:
        """What an answer cost, or None where its price or usage is not known."""
        usage = usage_of(answer)
        if usage is None:
            return None
        return cost(self.price, usage.prompt_tokens, usage.completion_tokens, batch=True)

    def reserve(self, job: Job) -> None:
        """Set a job's worst case aside; of a job that is under way already, whatever the budget says."""
        if self._budget is not None:
            self._budget.reserved += job.reserved_usd or 0.0

    def release(self, job: Job) -> None:
        """Give back what was set aside for a job that has ended."""
        if self._budget is not None:
            self._budget.settle(job.reserved_usd or 0.0, 0.0)

    def spend(self, entries: Iterable[Entry]) -> None:
        """Book answers."""
        if self._budget is None or self.price is None:
            return
        for entry in entries:
            if entry.answer is not None:
                request = request_from_json(entry.request)
                self._budget.spent += booked_cost(self.price, request, entry.answer, batch=True)
