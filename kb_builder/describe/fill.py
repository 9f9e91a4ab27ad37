"""The engine of stage 1: many subjects, each in rounds of requests, all in one pipeline.

A *subject* (a category, a sample) plans a round of requests, gets their entries, judges them and plans the
next round, until it has enough texts. Subjects are independent: while one waits for its last, slow answer,
the others' requests keep the describer busy. What a subject plans depends on its settings and on its own
earlier answers alone, so a run that was killed and is started again plans the same requests and ends with the
same rows, in any order of arriving answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from kb_builder.ask.asker import Asker, Listener
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request

# A round is asked for in pieces of this share of the window. One slow answer then keeps a small piece
# counted as waiting, not its whole round, and a window as wide as a batch's is not a task for each request.
_PIECES_PER_WINDOW = 256


class Subject(Protocol):
    """A category or sample being described. `fill` calls its methods from one thread, one at a time."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the answers so far, in plan order."""
        ...

    def plan(self) -> list[Request]:
        """The next round; [] when the subject is full, saturated or at its limit.

        Depends on nothing but the settings, the subject and the entries absorbed so far.
        """
        ...

    def absorb(self, entries: list[Entry | None]) -> None:
        """Parse and judge the last round's entries, in plan order.

        None: not answered in this run: the subject must then plan no further requests.
        """
        ...


_S = TypeVar("_S", bound=Subject)


@dataclass
class _Pipeline(Generic[_S]):
    asker: Asker
    on_done: Callable[[_S], None]
    worker: ThreadPoolExecutor
    tasks: asyncio.TaskGroup
    waiting: int = 0  # requests handed to the asker that have no entry yet
    active: int = 0  # subjects, and the loop that takes them, that may ask more before another answer
    answered: asyncio.Event = field(default_factory=asyncio.Event)


async def fill(subjects: Iterable[_S], asker: Asker, *, on_done: Callable[[_S], None]) -> None:
    """Run every subject until it plans no further requests, and pass it to `on_done` then.

    Subjects are taken lazily and in order, the next one only while fewer than `asker.window` requests wait.
    `subjects` itself, `plan`, `absorb` and `on_done` run in one worker thread, never in the event loop and
    never two at once. No reference to a finished subject is kept. The first error (of the asker, or of a
    subject) is raised after everything else was cancelled; answers received until then are in the ledger.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="fill") as worker:
            async with asyncio.TaskGroup() as tasks:
                await _take(_Pipeline(asker, on_done, worker, tasks), iter(subjects))
    except BaseExceptionGroup as group:
        # The others were cancelled because of the first, or have the same cause.
        raise group.exceptions[0] from None


async def _take(pipeline: _Pipeline[_S], subjects: Iterator[_S]) -> None:
    loop = asyncio.get_running_loop()
    _activate(pipeline)
    while True:
        while pipeline.waiting >= pipeline.asker.window:
            pipeline.answered.clear()
            _pause(pipeline)
            await pipeline.answered.wait()
            _activate(pipeline)
        # The worker takes jobs in order, so this one comes after the answers that are already there: subjects
        # do not pile up where judging is slower than asking.
        subject = await loop.run_in_executor(pipeline.worker, next, subjects, None)
        if subject is None:
            _pause(pipeline)
            return
        requests = await loop.run_in_executor(pipeline.worker, _plan, pipeline, subject)
        if requests:
            pipeline.waiting += len(requests)
            _activate(pipeline)
            pipeline.tasks.create_task(_follow(pipeline, subject, requests))


async def _follow(pipeline: _Pipeline[_S], subject: _S, requests: list[Request]) -> None:
    """The rounds of one subject, from its first. `requests` are already counted as waiting."""
    loop = asyncio.get_running_loop()
    while requests:
        size = max(1, pipeline.asker.window // _PIECES_PER_WINDOW)
        starts = range(0, len(requests), size)
        left = _Left(len(starts))
        pieces = [
            pipeline.tasks.create_task(_ask(pipeline, requests[start : start + size], left))
            for start in starts
        ]
        _pause(pipeline)
        await asyncio.wait(pieces)
        entries = [entry for piece in pieces for entry in piece.result()]
        requests = await loop.run_in_executor(pipeline.worker, _absorb, pipeline, subject, entries)
        pipeline.waiting += len(requests)
    _pause(pipeline)


def _activate(pipeline: _Pipeline[_S]) -> None:
    """One more subject may ask without waiting for an answer."""
    pipeline.active += 1
    if isinstance(pipeline.asker, Listener):
        pipeline.asker.more_may_come(True)


def _pause(pipeline: _Pipeline[_S]) -> None:
    """One subject fewer: it waits for answers. When all do, the asker learns that no request will follow."""
    pipeline.active -= 1
    if not pipeline.active:
        # Not at once: the tasks of the last round, created just before, must ask first.
        asyncio.get_running_loop().call_soon(_nothing_more, pipeline)


def _nothing_more(pipeline: _Pipeline[_S]) -> None:
    if not pipeline.active and isinstance(pipeline.asker, Listener):
        pipeline.asker.more_may_come(False)


@dataclass
class _Left:
    """The pieces of a round that have no entries yet."""

    pieces: int


async def _ask(pipeline: _Pipeline[_S], requests: list[Request], left: _Left) -> list[Entry | None]:
    entries = await pipeline.asker.ask(requests)
    pipeline.waiting -= len(requests)
    left.pieces -= 1
    if not left.pieces:  # from this moment the subject may ask again
        _activate(pipeline)
    pipeline.answered.set()
    return entries


def _absorb(pipeline: _Pipeline[_S], subject: _S, entries: list[Entry | None]) -> list[Request]:
    subject.absorb(entries)
    return _plan(pipeline, subject)


def _plan(pipeline: _Pipeline[_S], subject: _S) -> list[Request]:
    requests = subject.plan()
    if not requests:
        pipeline.on_done(subject)
    return requests
