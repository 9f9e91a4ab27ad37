"""Scheduler: sends many requests at once, retries failed ones, and can be stopped without loss.

    callers ──ask──> ledger? ──no──> bounded queue ──_pump──> calls in flight ──> ledger's writer ──> callers

One function decides whether the next request may be sent (`_pump`). It runs whenever something has changed:
a request was asked, a call has finished, a group was committed, a pause is over. No worker polls, and no
request has a timer. The checks, in this order: the limiter (calls in flight), the circuit breaker (all
requests are paused), the rate limits (requests and tokens per minute), the budget.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from data.errors import (
    DescriberError,
    RequestError,
    RunError,
    SampleError,
    ThrottledError,
    TransientError,
)
from data.files import hash_text
from kb_builder.ask.allowance import Allowance, RequestUse
from kb_builder.ask.asker import Progress
from kb_builder.ask.breaker import Breaker
from kb_builder.ask.ledger import GROUP_ROWS, Entry, Ledger, new_entry
from kb_builder.ask.limits import Limiter
from kb_builder.ask.policy import Policy, policy_for
from kb_builder.ask.request import Describer, Reply, Request, request_json
from kb_builder.ask.reuse import answered_elsewhere, reused
from kb_builder.ask.write_offs import write_off
from kb_builder.settings import Asking

log = logging.getLogger(__name__)

# After this number of refusals and no answer, the settings are wrong, not the requests.
_REFUSED_AT_ONCE = 20
ALL_REFUSED = "nothing is recorded as failed: correct the settings or the endpoint, and run again"
_REPORT_S = 0.2
_OBJECTS = 50_000
_NO_ANSWER = "no answer in time"


@asynccontextmanager
async def open_asker(
    describer: Describer,
    ledger: Ledger,
    *,
    settings: Asking,
    run_id: str,
    on_progress: Callable[[Progress], None] | None = None,
    policy: Policy | None = None,
) -> AsyncIterator[Scheduler]:
    """An `Asker` that asks `describer` what `ledger` does not hold.

    When the block ends, for any reason, it waits for the calls in flight and records them: they may have been
    paid for. `on_progress` is called at most five times a second, and at the end. `policy` replaces the one
    that follows from the settings. Raises `ProjectError` where a budget is set and the price is not known.
    """
    scheduler = Scheduler(
        describer,
        ledger,
        policy=policy or policy_for(describer, settings),
        run_id=run_id,
        on_progress=on_progress,
    )
    with _rarer_collections():
        try:
            yield scheduler
        finally:
            await scheduler.close()


@contextmanager
def _rarer_collections() -> Iterator[None]:
    """Look for reference cycles after 50,000 new objects, not after 700.

    Requests, calls and rows are many, live long and form no cycles: the search took a tenth of a run's CPU.
    """
    before = gc.get_threshold()
    if before[0]:  # else it is switched off
        gc.set_threshold(max(before[0], _OBJECTS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(eq=False, slots=True)
class _QueuedRequest:
    """A request that has no entry yet.

    `done` gets its entry, or None: the run stopped first, or the request could not be built (`unsendable`).
    """

    request: Request
    text: str
    key: str
    done: asyncio.Future[Entry | None]
    attempts: int = 0
    first_sent: float = 0.0  # loop time
    deadline: float = float("inf")  # on the breaker's clock
    last_error: DescriberError | None = None  # the server's last one, which says more than a timeout
    use: RequestUse = field(default_factory=RequestUse)
    unsendable: bool = False


@dataclass(eq=False)
class _Counts:
    answered: int = 0
    failed: int = 0
    from_ledger: int = 0
    in_flight: int = 0
    saved_usd: float = 0.0


class Scheduler:
    """See `open_asker`. Lives in one event loop; any number of tasks may `ask`."""

    def __init__(
        self,
        describer: Describer,
        ledger: Ledger,
        *,
        policy: Policy,
        run_id: str,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        # Keeps all calls busy while as many answers again wait for their commit.
        self.window = 2 * policy.concurrency + 2 * GROUP_ROWS
        self._describer = describer
        self._ledger = ledger
        self._policy = policy
        self._run_id = run_id
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._limiter = Limiter(policy.concurrency)
        self._breaker = Breaker(outage_s=policy.outage_s, first_s=policy.probe_s)
        self._allowance = Allowance(policy, ledger, describer)
        self._room = asyncio.Semaphore(self.window)
        self._jobs: dict[str, _QueuedRequest] = {}  # by key: all without an entry
        self._ready: deque[_QueuedRequest] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._commits: set[asyncio.Future[None]] = set()
        self._counts = _Counts()
        self._last_life = float("-inf")  # last answer or refusal, breaker's clock
        self._jitter = random.Random(0)  # spreads calls; changes no result
        # Refused before any request was answered: (job, error, seconds of the call). The requests may be at
        # fault, or the settings.
        self._held: list[tuple[_QueuedRequest, str, float]] = []
        self._asleep = 0  # jobs that wait for their next attempt
        self._more_may_come = False
        self._stopped = False
        self._reason: BaseException | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._report: asyncio.TimerHandle | None = None

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        """The entries of some requests, in order; see `asker.Asker`. A request asked twice is sent once."""
        texts = [request_json(request) for request in requests]
        keys = [hash_text(text) for text in texts]
        found = self._ledger.get_many(keys)
        self._count_known(found.values())
        jobs: dict[str, _QueuedRequest] = {}
        waited = False
        for request, text, key in zip(requests, texts, keys, strict=True):
            if key in found or key in jobs:
                continue
            waited = waited or self._room.locked()
            await self._room.acquire()
            job = self._jobs.get(key)
            if job is None and waited:  # meanwhile another caller may have asked this and got its answer
                found |= self._ledger.get_many([key])
            if job is not None or key in found:
                self._room.release()
            elif self._stopped:
                self._room.release()
                raise self._ended()
            else:
                job = self._enter(request, text, key)
            if job is not None:
                jobs[key] = job
        if jobs:
            await asyncio.wait([job.done for job in jobs.values()])
        entries = [found[key] if key in found else jobs[key].done.result() for key in keys]
        if any(entry is None and not jobs[key].unsendable for key, entry in zip(keys, entries, strict=True)):
            raise self._ended()
        return entries

    async def close(self) -> None:
        """Send nothing more; wait for the calls in flight and record them."""
        self._stop(None)
        try:
            if self._calls:
                log.warning("waiting for %d calls in flight: they may have been paid for", len(self._calls))
                await asyncio.wait(self._calls)
            if self._commits:
                self._ledger.flush()
                await asyncio.wait(self._commits)
        finally:
            if self._report is not None:
                self._report.cancel()
            self._report_now()

    def more_may_come(self, coming: bool) -> None:
        """See `asker.Listener`. If only refused requests are left, decide whether they are at fault."""
        self._more_may_come = coming
        self._judge_held()

    def _enter(self, request: Request, text: str, key: str) -> _QueuedRequest:
        """Enter a new job into the queue, or answer it from the ledger. The caller has acquired its room."""
        job = _QueuedRequest(request, text, key, self._loop.create_future())
        self._jobs[key] = job
        old = reused(self._ledger, text, run_id=self._run_id) if self._policy.reuse else None
        aliases = getattr(self._describer, "aliases", ())
        old = old or answered_elsewhere(self._ledger, text, aliases, run_id=self._run_id)
        if old is not None:
            self._counts.from_ledger += 1
            self._commit(job, old)
        else:
            self._ready.append(job)
            self._pump()
        return job

    def _pump(self) -> None:
        """Send every request that may be sent now. Called by everything that may change that."""
        try:
            while self._ready and not self._stopped and self._send_next():
                pass
        except Exception as error:
            self._stop(error)

    def _send_next(self) -> bool:
        """Send the next request; False where it must wait. `_pump` runs again when that may have changed."""
        in_flight = self._counts.in_flight
        if in_flight >= self._limiter.limit:
            return False
        # A kill loses the calls in flight and one group at most, which the next run asks again.
        if in_flight + len(self._commits) >= self._policy.concurrency + GROUP_ROWS:
            return False
        now = self._loop.time()
        wait = self._breaker.wait(now)
        if wait > 0.0:
            self._pump_in(wait)
            return False
        job = self._ready[0]
        if self._breaker.clock(now) >= job.deadline:
            self._ready.popleft()
            self._give_up(job, now)
            return True
        self._allowance.weigh(job.request, job.use)
        wait = self._allowance.wait(now, job.use)
        if wait > 0.0:
            self._pump_in(wait)
            return False
        if not self._allowance.reserve(job.use):
            if not in_flight:
                raise self._allowance.used_up(job.use)
            return False  # the calls in flight will cost less than their worst case
        self._ready.popleft()
        self._send(job, now)
        return True

    def _pump_in(self, seconds: float) -> None:
        if seconds == float("inf"):  # the end of the probe calls `_pump`
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_later(seconds, self._pump)

    def _send(self, job: _QueuedRequest, now: float) -> None:
        self._counts.in_flight += 1
        self._allowance.take(job.use)
        if not job.attempts:
            job.first_sent = now
            job.deadline = self._breaker.clock(now) + self._policy.deadline_s
        job.attempts += 1
        call = self._loop.create_task(self._call(job, now, probe=self._breaker.sent()))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, job: _QueuedRequest, sent: float, *, probe: bool) -> None:
        allowed = min(self._policy.call_s, job.deadline - self._breaker.clock(sent))
        outcome: Reply | Exception
        try:
            async with asyncio.timeout(allowed):
                outcome = await self._describer.answer(job.request)
        except TimeoutError:
            outcome = TransientError(_NO_ANSWER, maybe_paid=True)
        except Exception as error:
            outcome = error
        try:
            self._finish_call(job, outcome, sent, probe=probe)
        except Exception as error:
            self._stop(error)
        self._pump()
        self._judge_held()
        if not self._counts.in_flight:
            self._ledger.flush()  # nothing will join the group soon
        self._report_soon()

    def _finish_call(
        self, job: _QueuedRequest, outcome: Reply | Exception, sent: float, *, probe: bool
    ) -> None:
        now = self._loop.time()
        self._counts.in_flight -= 1
        cost = self._allowance.settle(job.use, outcome, now)
        if cost.write_off_usd is not None:  # no entry will show it to later runs
            self._keep(self._loop.create_task(self._ledger.write(partial(write_off, usd=cost.write_off_usd))))
        if isinstance(outcome, Reply):
            self._limiter.answered(now, sent=sent)
            self._alive(now)
            self._counts.answered += 1
            self._record(job, now - sent, answer=outcome.body, cost_usd=cost.usd)
            self._release()
        elif isinstance(outcome, RequestError):
            self._alive(now)
            self._refuse(job, outcome, now - sent)
        elif isinstance(outcome, ThrottledError | TransientError):
            self._fail(job, outcome, now, sent, probe=probe)
        elif isinstance(outcome, SampleError):
            # Nothing was sent: the endpoint is not to blame, and there is nothing to record.
            self._breaker.unsent(probe=probe)
            self._counts.failed += 1
            job.unsendable = True
            self._resolve(job, None)
        else:
            raise outcome

    def _alive(self, now: float) -> None:
        self._breaker.answered(now)
        self._last_life = self._breaker.clock(now)

    def _refuse(self, job: _QueuedRequest, error: RequestError, seconds: float) -> None:
        """Record a refusal if others were answered; else hold it until it is clear what is at fault."""
        if self._counts.answered or (error.of_content and self._answered_before(job)):
            self._record(job, seconds, error=str(error))
            return
        self._held.append((job, str(error), seconds))
        if len(self._held) >= _REFUSED_AT_ONCE:
            raise self._all_refused()

    def _release(self) -> None:
        """Record the held refusals: the endpoint answers others, so these requests are at fault."""
        held, self._held = self._held, []
        for job, error, seconds in held:
            self._record(job, seconds, error=error)

    def _judge_held(self) -> None:
        """Where only refused requests are left, decide by the ledger: were requests like them answered?"""
        busy = self._counts.in_flight or self._ready or self._asleep or self._commits
        if not self._held or busy or self._stopped or self._more_may_come:
            return
        if all(self._answered_before(job) for job, _, _ in self._held):
            self._release()
            self._ledger.flush()
        else:
            self._stop(self._all_refused())

    def _answered_before(self, job: _QueuedRequest) -> bool:
        """Whether the ledger holds an answer to a request like this one, on any subject."""
        return self._ledger.answered_like(job.text)

    def _all_refused(self) -> RunError:
        count = len(self._held)
        which = "the only request was" if count == 1 else f"the first {count} requests were all"
        return RunError(f"{which} refused, the last with: {self._held[-1][1]}; {ALL_REFUSED}")

    def _fail(
        self,
        job: _QueuedRequest,
        error: ThrottledError | TransientError,
        now: float,
        sent: float,
        *,
        probe: bool,
    ) -> None:
        """Retry a job after a pause, or give it up."""
        why = str(error)
        if not (isinstance(error, TransientError) and why == _NO_ANSWER and job.last_error):
            job.last_error = error
        self._breaker.failed(now, why, most=min(self._limiter.limit, len(self._jobs)), probe=probe)
        longest = min(
            self._policy.longest_pause_s, self._policy.first_pause_s * 2.0 ** min(job.attempts - 1, 30)
        )
        pause = self._jitter.uniform(0.0, longest)  # full jitter: Brooker, "Exponential Backoff And Jitter"
        if isinstance(error, ThrottledError):
            self._limiter.throttled(now, sent=sent)
            if now - job.first_sent >= self._policy.outage_s:
                raise RunError(
                    f"a request was throttled for {now - job.first_sent:.0f} s (`outage_s`), the last said: "
                    f"{error}; run again to continue: answered requests are kept"
                )
            if error.retry_after is not None:
                self._breaker.retry_after(now, error.retry_after, why)
                pause += error.retry_after
            job.deadline += now - sent + pause  # throttling is not this request's fault
        elif self._breaker.clock(now) + pause >= job.deadline:
            self._give_up(job, now)
            return
        if not self._stopped:
            self._asleep += 1
            self._loop.call_later(pause, self._wake_up, job)

    def _wake_up(self, job: _QueuedRequest) -> None:
        self._asleep -= 1
        self._ready.appendleft(job)
        self._pump()

    def _give_up(self, job: _QueuedRequest, now: float) -> None:
        """The deadline is over. If others are answered this request is at fault, else the endpoint."""
        clock = self._breaker.clock(now)
        if self._last_life >= job.deadline - self._policy.deadline_s:
            why = f"no answer within {self._policy.deadline_s:g} s: {job.last_error}"
            if self._counts.answered:
                self._record(job, 0.0, error=why)
            else:  # the others were refused
                self._held.append((job, why, 0.0))
                self._judge_held()
            return
        job.deadline = clock + self._policy.deadline_s
        self._ready.append(job)
        self._breaker.trip(now, str(job.last_error))

    def _record(
        self,
        job: _QueuedRequest,
        seconds: float,
        *,
        answer: str | None = None,
        error: str | None = None,
        cost_usd: float | None = None,
    ) -> None:
        if error is not None:
            self._counts.failed += 1
        entry = new_entry(
            job.text,
            provider=self._describer.provider,
            source=self._describer.source,
            run_id=self._run_id,
            attempts=job.attempts,
            latency_ms=seconds * 1000.0,
            answer=answer,
            error=error,
            cost_usd=cost_usd,
        )
        self._commit(job, entry)

    def _keep(self, commit: asyncio.Future[None]) -> None:
        """Track a commit that no job waits for; if it fails, the run ends."""

        def committed(commit: asyncio.Future[None]) -> None:
            self._commits.discard(commit)
            if error := commit.exception():
                self._stop(error)
            self._pump()
            self._judge_held()

        self._commits.add(commit)
        commit.add_done_callback(committed)

    def _commit(self, job: _QueuedRequest, entry: Entry) -> None:
        commit = self._ledger.submit(entry)
        self._commits.add(commit)
        commit.add_done_callback(partial(self._committed, job, entry))

    def _committed(self, job: _QueuedRequest, entry: Entry, commit: asyncio.Future[None]) -> None:
        self._commits.discard(commit)
        error = commit.exception()
        if error is None:
            self._resolve(job, entry)
        else:  # nothing more may be paid for when answers cannot be kept
            self._stop(error)
        self._pump()
        self._judge_held()
        self._report_soon()

    def _resolve(self, job: _QueuedRequest, entry: Entry | None) -> None:
        if self._jobs.pop(job.key, None) is not None:  # else the run stopped before
            job.done.set_result(entry)
            self._room.release()

    def _stop(self, reason: BaseException | None) -> None:
        """Send nothing more, and release every caller that waits."""
        if self._reason is None and not self._stopped:
            self._reason = reason
        self._stopped = True
        if self._wake is not None:
            self._wake.cancel()
        for job in list(self._jobs.values()):
            self._resolve(job, None)

    def _ended(self) -> BaseException:
        return self._reason or RunError(
            "the run has ended; run again to continue: answered requests are kept"
        )

    def _count_known(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._counts.from_ledger += 1
            self._counts.saved_usd += entry.cost_usd or 0.0
        self._report_soon()

    def _report_soon(self) -> None:
        if self._on_progress is not None and self._report is None:
            self._report = self._loop.call_later(_REPORT_S, self._report_now)

    def _report_now(self) -> None:
        self._report = None
        if self._on_progress is None:
            return
        counts = self._counts
        self._on_progress(
            Progress(
                answered=counts.answered,
                from_ledger=counts.from_ledger,
                failed=counts.failed,
                in_flight=counts.in_flight,
                limit=self._limiter.limit,
                spent_usd=None if self._policy.price is None else self._ledger.spent(),
                saved_usd=counts.saved_usd,
                paused=self._breaker.paused(self._loop.time()),
            )
        )
