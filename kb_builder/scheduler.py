"""Asks many requests at once: bounded, patient with failing endpoints, and stoppable without loss."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from data.errors import (
    DescriberError,
    KnowledgeBaseError,
    RequestError,
    RunError,
    ThrottledError,
    TransientError,
)
from kb_builder.client import Describer
from kb_builder.ledger import GROUP_ROWS, Entry, Ledger, new_entry
from kb_builder.request import Request

# Requests that sleep or wait for their commit hold no permit; at most so many of them wait.
_WAITING = 2 * GROUP_ROWS
# So many requests refused one after the other, and none accepted: the settings are wrong, not the requests.
_REFUSED_AT_ONCE = 20


@dataclass(frozen=True)
class Policy:
    """`concurrency` calls in flight; `call_s` for a call, `deadline_s` for a request's calls and pauses."""

    concurrency: int
    deadline_s: float
    call_s: float
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0


@dataclass
class _Run:
    describer: Describer
    ledger: Ledger
    policy: Policy
    run_id: str
    on_entry: Callable[[Entry], None]
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    reason: DescriberError | KnowledgeBaseError | None = None
    last_answer: float = float("-inf")  # loop time
    refused: int = 0
    jitter: random.Random = field(
        default_factory=lambda: random.Random(0)
    )  # spreads calls; changes no result

    def stop(self, reason: DescriberError | KnowledgeBaseError) -> None:
        self.reason = self.reason or reason
        self.stopped.set()


async def ask_all(
    requests: Iterable[Request],
    describer: Describer,
    ledger: Ledger,
    *,
    policy: Policy,
    run_id: str,
    on_entry: Callable[[Entry], None] = lambda entry: None,
) -> None:
    """Bring every request to an entry in the ledger: its answer, or the error that is final for it.

    Requests are taken lazily. `on_entry` is called after each commit. The caller leaves out what the ledger
    holds already. A reason that ends the run (`RunError`, `KnowledgeBaseError`) is raised after the calls in
    flight have come home and were recorded: they may have been paid for.
    """
    run = _Run(describer, ledger, policy, run_id, on_entry)
    permits = asyncio.Semaphore(policy.concurrency)
    room = asyncio.Semaphore(policy.concurrency + _WAITING)
    async with asyncio.TaskGroup() as tasks:
        for request in requests:
            await room.acquire()
            if run.stopped.is_set():
                break
            tasks.create_task(_bring_home(run, request, permits)).add_done_callback(lambda _: room.release())
    if run.reason is not None:
        raise run.reason


async def _bring_home(run: _Run, request: Request, permits: asyncio.Semaphore) -> None:
    try:
        entry = await _ask(run, request, permits)
        if entry is not None:
            await run.ledger.record(entry)
            run.on_entry(entry)
    except (RunError, KnowledgeBaseError) as error:
        run.stop(error)


async def _ask(run: _Run, request: Request, permits: asyncio.Semaphore) -> Entry | None:
    """The entry of one request, or None where the run stopped before there was one."""
    clock = asyncio.get_running_loop().time
    deadline = float("inf")
    attempt = 0
    said: DescriberError | None = None  # the last thing the server said: it tells more than a time-out
    while True:
        async with permits:
            if run.stopped.is_set():
                return None
            attempt += 1
            start = clock()
            deadline = min(deadline, start + run.policy.deadline_s)  # counted from the first call
            error: DescriberError
            try:
                async with asyncio.timeout_at(min(deadline, start + run.policy.call_s)):
                    reply = await run.describer.answer(request)
            except TimeoutError:
                error = TransientError("no answer in time")
            except RequestError as refusal:
                return _refused(run, request, refusal, attempt, clock() - start)
            except (ThrottledError, TransientError) as failure:
                error = said = failure
            else:
                run.last_answer = clock()
                return _entry(run, request, reply.body, None, attempt, clock() - start)
        pause = _pause(run, error, attempt)
        if clock() + pause >= deadline:
            return _give_up(run, request, said or error, attempt, clock())
        await _sleep(run, pause)


def _pause(run: _Run, error: DescriberError, attempt: int) -> float:
    """Seconds to wait: any Retry-After, and full jitter (Brooker, "Exponential Backoff And Jitter")."""
    longest = min(run.policy.longest_pause_s, run.policy.first_pause_s * 2.0 ** min(attempt - 1, 30))
    told = error.retry_after if isinstance(error, ThrottledError) else None
    return (told or 0.0) + run.jitter.uniform(0.0, longest)


async def _sleep(run: _Run, seconds: float) -> None:
    """Sleep, or less where the run stops."""
    try:
        await asyncio.wait_for(run.stopped.wait(), seconds)
    except TimeoutError:
        return


def _give_up(run: _Run, request: Request, error: DescriberError, attempt: int, now: float) -> Entry:
    """The deadline is over: if others are being answered this request is at fault, else the endpoint is."""
    alive = now - run.last_answer < run.policy.deadline_s / 2
    if isinstance(error, ThrottledError) or not alive:
        raise RunError(
            f"no answer within {run.policy.deadline_s:g} s ({attempt} tries), the last said: {error}; "
            "run again to go on: answered requests are kept"
        )
    return _entry(run, request, None, f"no answer within {run.policy.deadline_s:g} s: {error}", attempt, 0.0)


def _refused(run: _Run, request: Request, error: RequestError, attempt: int, seconds: float) -> Entry:
    run.refused += 1
    if run.last_answer == float("-inf") and run.refused >= _REFUSED_AT_ONCE:
        raise RunError(f"the first {run.refused} requests were all refused, the last with: {error}")
    return _entry(run, request, None, str(error), attempt, seconds)


def _entry(
    run: _Run, request: Request, answer: str | None, error: str | None, attempt: int, seconds: float
) -> Entry:
    return new_entry(
        request,
        answer=answer,
        error=error,
        attempts=attempt,
        latency_ms=seconds * 1000.0,
        provider=run.describer.provider,
        source=run.describer.source,
        run_id=run.run_id,
    )
