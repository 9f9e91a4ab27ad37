"""The engine that brings many subjects to their end in one pipeline."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from data.errors import RunError
from kb_builder.ask.ledger import Entry
from kb_builder.ask.request import Request, request_key
from kb_builder.describe.fill import fill


def request(subject: int, index: int) -> Request:
    return Request("test:", "m", (("user", str(subject)),), None, None, None, subject, index)


def entry(asked: Request) -> Entry:
    values = {
        "key": request_key(asked),
        "request": "{}",
        "answer": f"{asked.seed}/{asked.sample_index}",
        "error": None,
        "attempts": 1,
        "latency_ms": 0.0,
        "created_at": 0,
        "provider": "test",
        "source": "fake",
        "run_id": "r",
    }
    known = Entry.__dataclass_fields__
    rest = {name: None for name in known if name not in values}
    return Entry(**values, **rest)  # type: ignore[arg-type]


class Rounds:
    """A subject with rounds of given sizes, which notes who called it and what it got."""

    def __init__(self, number: int, sizes: Sequence[int]) -> None:
        self.number, self.sizes, self.index = number, list(sizes), 0
        self.rows: list[dict[str, Any]] = []
        self.threads: set[int] = set()

    def plan(self) -> list[Request]:
        self.threads.add(threading.get_ident())
        size = self.sizes.pop(0) if self.sizes else 0
        self.index += size
        return [request(self.number, index) for index in range(self.index - size, self.index)]

    def absorb(self, entries: list[Entry | None]) -> None:
        self.threads.add(threading.get_ident())
        if None in entries:
            self.sizes = []
        self.rows += [{"answer": each and each.answer} for each in entries]


class Asker:
    """Answers in random order, and counts how many requests wait."""

    def __init__(self, window: int, *, seed: int = 0, broken_at: int | None = None) -> None:
        self.window, self.broken_at = window, broken_at
        self.random = random.Random(seed)
        self.waiting = self.most_waiting = self.asked = self.answered = self.cancelled = 0

    def nothing_more(self) -> None:
        """Answers come all the same."""

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        self.asked += len(requests)
        self.waiting += len(requests)
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self.broken_at is not None and self.asked >= self.broken_at:
            raise RunError("the endpoint is gone")
        try:
            for _ in range(self.random.randrange(20)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.waiting -= len(requests)
        self.answered += len(requests)
        return [entry(each) for each in requests]


def sizes(number: int) -> list[int]:
    return [1 + number % 5, number % 3, 2][: 1 + number % 3]


def test_every_subject_gets_its_answers_in_plan_order() -> None:
    """Whatever the order of arrival, each subject absorbs its own answers in the order of its plan."""
    for seed in range(3):
        done: list[Rounds] = []
        subjects = (Rounds(number, sizes(number)) for number in range(100))
        asyncio.run(fill(subjects, Asker(20, seed=seed), on_done=done.append))
        assert sorted(subject.number for subject in done) == list(range(100))
        for subject in done:
            assert [row["answer"] for row in subject.rows] == [
                f"{subject.number}/{index}" for index in range(subject.index)
            ]


def test_subjects_are_taken_lazily_and_the_window_holds() -> None:
    """No more wait than the window and the rounds that were open when it filled; the taker stays behind."""
    taken = 0
    asker = Asker(30)
    furthest = 0

    def subjects() -> Iterator[Rounds]:
        nonlocal taken, furthest
        for number in range(200):
            taken += 1
            furthest = max(furthest, taken * 5 - asker.answered)
            yield Rounds(number, [5])

    asyncio.run(fill(subjects(), asker, on_done=lambda subject: None))
    assert taken == 200 and asker.answered == 1000
    assert asker.most_waiting <= 30 + 5
    assert furthest <= 30 + 2 * 5


def test_one_slow_answer_holds_up_nobody_else() -> None:
    """While one subject's first answer hangs, all others are finished: there is no barrier."""
    done: list[int] = []

    class Slow(Asker):
        async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
            if requests[0].seed == 0:
                while len(done) < 99:
                    await asyncio.sleep(0)
            return await super().ask(requests)

    subjects = [Rounds(number, [2, 2]) for number in range(100)]
    asyncio.run(fill(subjects, Slow(8), on_done=lambda subject: done.append(subject.number)))
    assert done[-1] == 0 and len(done) == 100


def test_one_worker_thread_does_all_the_work() -> None:
    """Plans, verdicts and `on_done` run in one thread that is not the event loop's."""
    subjects = [Rounds(number, [3, 1]) for number in range(20)]
    threads: set[int] = set()
    asyncio.run(fill(subjects, Asker(8), on_done=lambda subject: threads.add(threading.get_ident())))
    for subject in subjects:
        threads |= subject.threads
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_of_the_asker_ends_the_run() -> None:
    """The error itself is raised, everything else is cancelled, finished subjects were handed over."""
    done: list[Rounds] = []
    asker = Asker(20, broken_at=100)
    with pytest.raises(RunError, match="the endpoint is gone"):
        asyncio.run(fill([Rounds(n, [5, 5]) for n in range(100)], asker, on_done=done.append))
    assert all(len(subject.rows) == 10 for subject in done)
    assert asker.asked <= 100 + 2 * 20  # what the tasks that had already begun still asked


def test_an_error_of_a_subject_ends_the_run() -> None:
    """A mistake in a plan, a verdict or `on_done` is raised as it is."""

    def broken(subject: Rounds) -> None:
        raise ZeroDivisionError("judged wrongly")

    with pytest.raises(ZeroDivisionError, match="judged wrongly"):
        asyncio.run(fill([Rounds(n, [3]) for n in range(50)], Asker(10), on_done=broken))


def test_cancelling_stops_at_once() -> None:
    """A cancelled run takes no further subject and leaves no task behind."""

    async def run() -> int:
        asker = Asker(10)
        task = asyncio.create_task(
            fill((Rounds(n, [5]) for n in range(10**9)), asker, on_done=lambda subject: None)
        )
        while asker.answered < 100:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return asker.asked

    assert asyncio.run(run()) < 10**5


def test_what_nobody_answers_ends_the_subject() -> None:
    """None entries reach the subject, which then stops."""

    class Nobody:
        window = 100

        async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
            return [None for _ in requests]

        def nothing_more(self) -> None:
            """Nobody waits."""

    done: list[Rounds] = []
    asyncio.run(fill([Rounds(0, [2, 2, 2])], Nobody(), on_done=done.append))
    assert done[0].rows == [{"answer": None}] * 2


def test_nothing_to_do_is_done() -> None:
    """No subjects, and subjects that want nothing."""
    done: list[Rounds] = []
    asyncio.run(fill([], Asker(1), on_done=done.append))
    asyncio.run(fill([Rounds(0, []), Rounds(1, [])], Asker(1), on_done=done.append))
    assert [subject.number for subject in done] == [0, 1]
