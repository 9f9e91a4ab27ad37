"""The scheduler, with a describer that does as it is told and a real ledger."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import (
    DescriberError,
    KnowledgeBaseError,
    RequestError,
    RunError,
    ThrottledError,
    TransientError,
)
from kb_builder.ledger import Entry, Ledger, open_ledger, read_entries
from kb_builder.request import Request
from kb_builder.scheduler import Policy, ask_all

BASE = Request(
    endpoint="e",
    model="m",
    messages=(("user", "x"),),
    temperature=None,
    top_p=None,
    max_tokens=None,
    seed=None,
    sample_index=0,
)
QUICK = Policy(concurrency=4, deadline_s=20.0, call_s=20.0, first_pause_s=0.001, longest_pause_s=0.01)

Script = Callable[[int, int], DescriberError | None]


class Scripted:
    """Answers by `script(request number, attempt)`; counts calls and how many ran at once."""

    provider = source = "fake"
    endpoint = "e"
    model = "m"

    def __init__(self, script: Script = lambda number, attempt: None, seconds: float = 0.0) -> None:
        self.script = script
        self.seconds = seconds
        self.calls: Counter[int] = Counter()
        self.running = self.most = 0

    async def answer(self, request: Request) -> str:
        self.calls[request.sample_index] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
            error = self.script(request.sample_index, self.calls[request.sample_index])
            if error is not None:
                raise error
            return json.dumps({"number": request.sample_index})
        finally:
            self.running -= 1

    async def close(self) -> None:
        """Nothing is open."""


def requests(count: int) -> Iterator[Request]:
    return (replace(BASE, sample_index=number) for number in range(count))


def run(kb: Path, describer: Scripted, count: int, policy: Policy = QUICK) -> list[Entry]:
    """Ask `count` requests; what the ledger holds afterwards."""

    async def ask() -> None:
        async with open_ledger(kb) as ledger:
            await ask_all(requests(count), describer, ledger, policy=policy, run_id="r")

    asyncio.run(ask())
    return read_entries(kb)


def numbers(entries: list[Entry]) -> list[int]:
    return sorted(json.loads(entry.request)["sample_index"] for entry in entries)


def test_every_request_gets_one_entry_within_the_bound(tmp_path: Path) -> None:
    """All are answered once, and never more at a time than allowed."""
    describer = Scripted(seconds=0.002)
    assert numbers(run(tmp_path, describer, 100)) == list(range(100))
    assert set(describer.calls.values()) == {1}
    assert describer.most == 4


def test_the_plan_is_taken_lazily(tmp_path: Path) -> None:
    """A plan of any length needs no memory: it is read no further than the requests at work."""
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        for request in requests(1_000_000):
            taken += 1
            yield request

    async def ask() -> None:
        describer = Scripted(
            lambda number, attempt: RunError("stop") if number == 10 else None, seconds=0.001
        )
        async with open_ledger(tmp_path) as ledger:
            await ask_all(endless(), describer, ledger, policy=QUICK, run_id="r")

    with pytest.raises(RunError, match="stop"):
        asyncio.run(ask())
    assert taken < 1000


def test_transient_and_throttled_requests_are_tried_again(tmp_path: Path) -> None:
    """The entry counts the attempts, and the answer is the one that came in the end."""

    def script(number: int, attempt: int) -> DescriberError | None:
        faults = [TransientError("500"), ThrottledError("429", retry_after=0.01)]
        return faults[attempt - 1] if number % 3 == 0 and attempt <= 2 else None

    entries = run(tmp_path, Scripted(script), 30)
    assert {(entry.error, entry.attempts) for entry in entries} == {(None, 1), (None, 3)}
    assert numbers(entries) == list(range(30))


def test_sleeping_requests_hold_no_permit(tmp_path: Path) -> None:
    """While one request waits for a throttling server, the only permit serves all the others."""
    order: list[int] = []

    def script(number: int, attempt: int) -> DescriberError | None:
        if number == 0 and attempt == 1:
            return ThrottledError("429", retry_after=0.3)
        order.append(number)
        return None

    run(tmp_path, Scripted(script), 20, replace(QUICK, concurrency=1))
    assert sorted(order) == list(range(20))
    assert order[-1] == 0


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """No second call comes earlier than the server asked for."""
    times: list[float] = []

    def script(number: int, attempt: int) -> DescriberError | None:
        times.append(asyncio.get_running_loop().time())
        return ThrottledError("429", retry_after=0.2) if attempt == 1 else None

    run(tmp_path, Scripted(script), 1)
    assert times[1] - times[0] >= 0.2


def test_a_refused_request_is_kept_with_its_reason(tmp_path: Path) -> None:
    """It is final for the row, is not tried again, and the others go on."""
    describer = Scripted(lambda number, attempt: RequestError("status 400: bad") if number == 3 else None)
    entries = run(tmp_path, describer, 10)
    assert [(entry.answer, entry.error) for entry in entries if entry.error] == [(None, "status 400: bad")]
    assert describer.calls[3] == 1
    assert len(entries) == 10


def test_refusals_from_the_first_on_stop_the_run(tmp_path: Path) -> None:
    """Twenty refusals and no answer: a setting is wrong, and a thousand more would not mend it."""
    describer = Scripted(lambda number, attempt: RequestError("temperature is not supported"))
    with pytest.raises(RunError, match=r"first 20 requests .* temperature is not supported"):
        run(tmp_path, describer, 1000, replace(QUICK, concurrency=1))
    assert describer.calls.total() == 20


def test_a_run_error_stops_and_keeps_what_came_home(tmp_path: Path) -> None:
    """Calls in flight end and are recorded, nothing new is asked, and a second run asks only the rest."""
    first = Scripted(lambda number, attempt: RunError("402") if number == 10 else None, seconds=0.005)
    with pytest.raises(RunError, match="402"):
        run(tmp_path, first, 100)
    kept = numbers(read_entries(tmp_path))
    assert 10 <= len(kept) <= 14 and 10 not in kept
    assert first.calls.total() == len(kept) + 1


def test_a_hanging_call_is_tried_again(tmp_path: Path) -> None:
    """A call that does not come back within `call_s` is one failed attempt."""

    class Hanging(Scripted):
        async def answer(self, request: Request) -> str:
            if request.sample_index == 1 and self.calls[1] == 0:
                self.calls[1] += 1
                await asyncio.sleep(60)
            return await super().answer(request)

    describer = Hanging()
    entries = run(tmp_path, describer, 5, replace(QUICK, call_s=0.1))
    assert describer.calls[1] == 2
    assert [entry.attempts for entry in entries if json.loads(entry.request)["sample_index"] == 1] == [2]


def test_one_request_past_its_deadline_is_kept_as_failed(tmp_path: Path) -> None:
    """Where others are answered all the while, the request is at fault and the run goes on."""
    describer = Scripted(lambda number, attempt: TransientError("500") if number == 0 else None, seconds=0.02)
    entries = run(tmp_path, describer, 160, replace(QUICK, deadline_s=1.0, concurrency=2))
    assert [entry.error for entry in entries if entry.error] == ["no answer within 1 s: 500"]
    assert len(entries) == 160


def test_an_endpoint_that_answers_nobody_stops_the_run(tmp_path: Path) -> None:
    """No row is blamed for an outage: nothing is recorded, and the next run asks again."""
    describer = Scripted(lambda number, attempt: TransientError("connection refused"))
    with pytest.raises(RunError, match="connection refused; run again to go on"):
        run(tmp_path, describer, 10, replace(QUICK, deadline_s=0.1))
    assert read_entries(tmp_path) == []


def test_throttling_past_the_deadline_blames_no_row(tmp_path: Path) -> None:
    """A server that throttles one request for ever stops the run instead of failing the row."""
    throttled = ThrottledError("429", retry_after=60.0)
    describer = Scripted(lambda number, attempt: throttled if number == 5 else None)
    with pytest.raises(RunError, match="429"):
        run(tmp_path, describer, 20)
    assert 5 not in numbers(read_entries(tmp_path))


def test_a_ledger_that_cannot_write_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is asked of a paid endpoint when answers cannot be kept."""
    describer = Scripted(seconds=0.001)

    def full(self: Ledger, entries: list[Entry]) -> None:
        raise KnowledgeBaseError("disk full")

    monkeypatch.setattr(Ledger, "_commit", full)
    with pytest.raises(KnowledgeBaseError, match="disk full"):
        run(tmp_path, describer, 100_000)
    assert describer.calls.total() < 2000
