"""The scheduler, with a describer that does as it is told and a real ledger."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import (
    DescriberError,
    KnowledgeBaseError,
    ProjectError,
    RequestError,
    RunError,
    SampleError,
    ThrottledError,
    TransientError,
    UniBindError,
)
from kb_builder.ask.asker import Progress
from kb_builder.ask.cost import worst_case
from kb_builder.ask.ledger import GROUP_ROWS, Entry, Ledger, iter_entries, open_ledger
from kb_builder.ask.policy import Policy, policy_for
from kb_builder.ask.request import Limits, Reply, Request, request_key
from kb_builder.ask.scheduler import open_asker
from kb_builder.describe.fill import fill
from kb_builder.describers.fake import FakeDescriber
from kb_builder.settings import Asking, Price

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
QUICK = Policy(
    concurrency=4, deadline_s=20.0, call_s=20.0, first_pause_s=0.001, longest_pause_s=0.01, probe_s=0.005
)
PRICE = Price(input=1.0, output=1.0, date="2026-01-01")

Script = Callable[[int, int], UniBindError | None]


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
        self.limits: Limits | None = None
        self.usage: dict[str, int] | None = None

    async def answer(self, request: Request) -> Reply:
        self.calls[request.sample_index] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
            error = self.script(request.sample_index, self.calls[request.sample_index])
            if error is not None:
                raise error
            body = {"choices": [{"finish_reason": "stop"}], "number": request.sample_index}
            return Reply(json.dumps(body | ({"usage": self.usage} if self.usage else {})), self.limits)
        finally:
            self.running -= 1

    async def close(self) -> None:
        """Nothing is open."""


def requests(count: int, base: Request = BASE) -> list[Request]:
    return [replace(base, sample_index=number) for number in range(count)]


async def ask_in(
    kb: Path,
    describer: Scripted,
    plans: Sequence[Sequence[Request]],
    policy: Policy = QUICK,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[list[Entry | None] | BaseException]:
    """Several callers at once, each with its own plan; what each got."""
    async with (
        open_ledger(kb) as ledger,
        open_asker(
            describer, ledger, settings=Asking(), run_id="r", policy=policy, on_progress=on_progress
        ) as asker,
    ):
        return await asyncio.gather(*map(asker.ask, plans), return_exceptions=True)


def run(kb: Path, describer: Scripted, count: int, policy: Policy = QUICK) -> list[Entry]:
    """Ask `count` requests; what the ledger holds afterwards. Raises what the caller got."""
    (result,) = asyncio.run(ask_in(kb, describer, [requests(count)], policy))
    if isinstance(result, BaseException):
        raise result
    assert [entry and json.loads(entry.request)["sample_index"] for entry in result] == list(range(count))
    entries = list(iter_entries(kb))
    assert {entry.key for entry in result if entry} == {entry.key for entry in entries}
    return entries


def numbers(entries: list[Entry]) -> list[int]:
    return sorted(json.loads(entry.request)["sample_index"] for entry in entries)


def test_every_request_gets_one_entry_within_the_bound(tmp_path: Path) -> None:
    """All are answered once, in the order of the caller, and never more at a time than allowed."""
    describer = Scripted(seconds=0.002)
    assert numbers(run(tmp_path, describer, 100)) == list(range(100))
    assert set(describer.calls.values()) == {1}
    assert describer.most == 4


def test_equal_requests_of_several_callers_are_sent_once(tmp_path: Path) -> None:
    """Overlapping plans, and one request twice in a plan: one call, and everybody gets the entry."""
    plan = requests(20)
    describer = Scripted(seconds=0.005)
    first, second = asyncio.run(ask_in(tmp_path, describer, [plan[:15] * 2, plan[5:]]))
    assert set(describer.calls.values()) == {1} and len(describer.calls) == 20
    assert isinstance(first, list) and isinstance(second, list)
    assert first[:15] == first[15:]
    assert first[5:15] == second[:10]


def test_a_full_queue_makes_callers_wait_and_sends_nothing_twice(tmp_path: Path) -> None:
    """Plans beyond the window enter as there is room, and nothing that another caller got meanwhile."""
    plan = requests(1500)
    describer = Scripted()
    results = asyncio.run(ask_in(tmp_path, describer, [plan, plan, plan[::-1]]))
    assert set(describer.calls.values()) == {1}
    assert all(isinstance(result, list) and None not in result for result in results)
    assert len(list(iter_entries(tmp_path))) == 1500


def test_what_the_ledger_holds_is_not_asked(tmp_path: Path) -> None:
    """A second run asks only what is new, and says how much it found and what that had cost."""
    policy = replace(QUICK, price=PRICE)
    describer = Scripted()
    describer.usage = {"prompt_tokens": 250_000, "completion_tokens": 250_000}
    seen: list[Progress] = []
    asyncio.run(ask_in(tmp_path, describer, [requests(10)], policy))
    asyncio.run(ask_in(tmp_path, describer, [requests(15)], policy, seen.append))
    assert set(describer.calls.values()) == {1}
    last = seen[-1]
    assert (last.answered, last.from_ledger, last.failed, last.in_flight) == (5, 10, 0, 0)
    assert (last.spent_usd, last.saved_usd, last.paused) == (7.5, 5.0, None)
    assert {entry.cost_usd for entry in list(iter_entries(tmp_path))} == {0.5}


def test_a_kill_loses_no_more_than_calls_and_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is slow, calls in flight and answers that wait for their commit stay within that sum."""
    waiting: list[int] = []
    submit = Ledger.submit
    homeless = 0

    def counted(self: Ledger, entry: Entry) -> asyncio.Future[None]:
        nonlocal homeless
        homeless += 1
        waiting.append(homeless + describer.running)
        commit = submit(self, entry)
        commit.add_done_callback(landed)
        return commit

    def landed(commit: asyncio.Future[None]) -> None:
        nonlocal homeless
        homeless -= 1

    monkeypatch.setattr(Ledger, "submit", counted)
    describer = Scripted()
    run(tmp_path, describer, 1500)
    assert max(waiting) <= QUICK.concurrency + GROUP_ROWS


def test_transient_and_throttled_requests_are_tried_again(tmp_path: Path) -> None:
    """The entry counts the attempts, and the answer is the one that came in the end."""

    def script(number: int, attempt: int) -> DescriberError | None:
        faults = [TransientError("500"), ThrottledError("429", retry_after=0.01)]
        return faults[attempt - 1] if number % 3 == 0 and attempt <= 2 else None

    entries = run(tmp_path, Scripted(script), 30)
    assert {(entry.error, entry.attempts) for entry in entries} == {(None, 1), (None, 3)}
    assert numbers(entries) == list(range(30))


def test_sleeping_requests_hold_no_permit(tmp_path: Path) -> None:
    """While one request waits to be tried again, the only permit serves all the others."""
    order: list[int] = []

    def script(number: int, attempt: int) -> DescriberError | None:
        if number == 0 and attempt == 1:
            return TransientError("500")
        order.append(number)
        return None

    run(tmp_path, Scripted(script), 20, replace(QUICK, concurrency=1, first_pause_s=0.5, longest_pause_s=0.5))
    assert sorted(order) == list(range(20))
    assert order[-1] == 0


def test_nobody_sends_before_a_retry_after_is_over(tmp_path: Path) -> None:
    """One 429 that says how long to wait holds every request back, new ones too."""
    times: dict[int, list[float]] = {}

    def script(number: int, attempt: int) -> DescriberError | None:
        times.setdefault(number, []).append(asyncio.get_running_loop().time())
        return ThrottledError("429", retry_after=0.2) if number == attempt == 1 else None

    run(tmp_path, Scripted(script), 20, replace(QUICK, concurrency=1))
    told = times[1][0]
    later = [time for number in times for time in times[number] if time > told]
    assert len(later) == 19
    assert min(later) - told >= 0.2


def test_a_retry_after_beyond_the_outage_stops_at_once(tmp_path: Path) -> None:
    """It says when to come back; the deadline of no request is spent on it."""
    describer = Scripted(lambda number, attempt: ThrottledError("status 429", retry_after=7200.0))
    with pytest.raises(RunError, match=r"status 429.*7200 s.*UTC"):
        run(tmp_path, describer, 10)
    assert describer.calls.total() <= QUICK.concurrency


def test_throttling_lowers_the_calls_in_flight(tmp_path: Path) -> None:
    """A server that takes 8 at once is soon sent about 8 at once, and everything is answered."""

    class Capped(Scripted):
        throttled = 0

        async def answer(self, request: Request) -> Reply:
            if self.running >= 8:
                self.throttled += 1
                raise ThrottledError("429")
            return await super().answer(request)

    describer = Capped(seconds=0.005)
    assert len(run(tmp_path, describer, 2000, replace(QUICK, concurrency=64))) == 2000
    assert describer.most == 8
    assert describer.throttled < 2000


def test_the_headers_rate_is_kept(tmp_path: Path) -> None:
    """Without any setting: what the answers' headers allow is not passed, so nobody is throttled."""
    describer = Scripted()
    left, filled = 20.0, float("-inf")

    def script(number: int, attempt: int) -> DescriberError | None:
        nonlocal left, filled
        now = asyncio.get_running_loop().time()
        left = min(20.0, left + (now - filled) * 40.0)
        filled = now
        if left < 1.0:
            return ThrottledError("429")
        left -= 1.0
        describer.limits = Limits(requests=20, requests_left=int(left), reset_requests_s=(20 - left) / 40)
        return None

    describer.script = script
    entries = run(tmp_path, describer, 60)
    assert {entry.attempts for entry in entries} == {1}


def test_a_refused_request_is_kept_with_its_reason(tmp_path: Path) -> None:
    """It is final for the row, is not tried again, and the others go on."""
    describer = Scripted(lambda number, attempt: RequestError("status 400: bad") if number == 3 else None)
    entries = run(tmp_path, describer, 10)
    assert [(entry.answer, entry.error) for entry in entries if entry.error] == [(None, "status 400: bad")]
    assert describer.calls[3] == 1
    assert len(entries) == 10


def test_refusals_before_any_answer_say_nothing_of_the_requests(tmp_path: Path) -> None:
    """Twenty in a row end the run and are not recorded: once corrected, every request is asked and
    answered."""
    wrong = Scripted(lambda number, attempt: RequestError("status 413: too large"))
    with pytest.raises(RunError, match=r"first 20 requests were all refused.*413.*nothing is recorded"):
        run(tmp_path, wrong, 60)
    assert list(iter_entries(tmp_path)) == []
    assert all(entry.answer for entry in run(tmp_path, Scripted(), 60))


@pytest.mark.parametrize("count", [1, 2, 9, 19])
def test_where_all_are_refused_nothing_is_recorded(tmp_path: Path, count: int) -> None:
    """However few they are: the run stops with the server's words, and asks again once that is corrected."""
    wrong = Scripted(lambda number, attempt: RequestError("status 400: no pictures here"))
    with pytest.raises(RunError, match=r"refused.*no pictures here.*nothing is recorded as failed"):
        run(tmp_path, wrong, count)
    assert list(iter_entries(tmp_path)) == []
    assert wrong.calls.total() == count
    assert all(entry.answer for entry in run(tmp_path, Scripted(), count))


def test_a_refusal_at_the_end_is_the_requests_own(tmp_path: Path) -> None:
    """What others like it were answered before, in this run or an earlier one, is recorded as refused."""
    run(tmp_path, Scripted(), 9)
    refuse = Scripted(lambda number, attempt: RequestError("status 400: unsafe", of_content=True))
    entries = run(tmp_path, refuse, 10)
    assert [entry.error for entry in entries if entry.error] == ["status 400: unsafe"]
    assert sum(refuse.calls.values()) == 1


def test_other_parameters_are_no_proof(tmp_path: Path) -> None:
    """The ledger is full of answers, but none to a request that is made as these are."""
    run(tmp_path, Scripted(), 9)
    changed = requests(5, replace(BASE, temperature=0.3))
    refuse = Scripted(lambda number, attempt: RequestError("status 400: bad"))
    (result,) = asyncio.run(ask_in(tmp_path, refuse, [changed]))
    assert isinstance(result, RunError)
    assert len(list(iter_entries(tmp_path))) == 9


def test_many_refusals_of_a_known_kind_stop_the_run_unless_they_speak_of_content(tmp_path: Path) -> None:
    """An endpoint that refuses everything since yesterday is at fault; a policy never is."""
    run(tmp_path, Scripted(), 5)
    refuse = Scripted(lambda number, attempt: RequestError("status 400: key expired"))
    with pytest.raises(RunError, match="first 20 requests"):
        run(tmp_path, refuse, 60)
    assert len(list(iter_entries(tmp_path))) == 5
    policy = Scripted(lambda number, attempt: RequestError("status 400: unsafe", of_content=True))
    assert sum(entry.error is not None for entry in run(tmp_path, policy, 60)) == 55


def test_refusals_wait_for_those_that_are_under_way(tmp_path: Path) -> None:
    """A slow answer, and a request that is tried again, may still show that the endpoint is not at fault."""

    def script(number: int, attempt: int) -> UniBindError | None:
        if number < 5:
            return RequestError("status 400: bad")
        return TransientError("status 503") if attempt < 4 else None

    entries = run(tmp_path, Scripted(script), 6)
    assert sorted(entry.error is not None for entry in entries) == [False, *[True] * 5]


def test_what_is_still_planned_is_waited_for(tmp_path: Path) -> None:
    """Subjects that come late count: the first one's refusal does not end a run whose second is answered."""
    refused = Scripted(lambda number, attempt: RequestError("bad") if number == 0 else None)

    class Once:
        def __init__(self, number: int) -> None:
            self.number, self.rows = number, list[dict[str, Any]]()
            self.planned = False

        def plan(self) -> list[Request]:
            if self.planned:
                return []
            self.planned = True
            return [requests(self.number + 1)[-1]]

        def absorb(self, entries: list[Entry | None]) -> None:
            self.rows = [{"error": each and each.error} for each in entries]

    def subjects() -> Iterator[Once]:
        yield Once(0)
        time.sleep(0.2)  # a file that takes long to be measured
        yield Once(1)

    async def fill_it() -> list[Once]:
        done: list[Once] = []
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(refused, ledger, settings=Asking(), run_id="r", policy=QUICK) as asker,
        ):
            await fill(subjects(), asker, on_done=done.append)
        return done

    done = asyncio.run(fill_it())
    assert sorted(str(each.rows[0]["error"]) for each in done) == ["None", "bad"]
    assert len(list(iter_entries(tmp_path))) == 2


def test_failed_requests_can_be_asked_again(tmp_path: Path) -> None:
    """`forget_failed` removes what holds no answer, of some requests or of all, and nothing else."""
    describer = Scripted(lambda number, attempt: RequestError("no") if number in {3, 5, 7} else None)
    failed = [entry.key for entry in run(tmp_path, describer, 10) if entry.error]

    async def forget(keys: list[str] | None) -> int:
        async with open_ledger(tmp_path) as ledger:
            return await ledger.forget_failed(keys)

    every = [entry.key for entry in list(iter_entries(tmp_path))]
    assert asyncio.run(forget([failed[0], *set(every) - set(failed)])) == 1
    assert asyncio.run(forget(None)) == 2
    assert len(list(iter_entries(tmp_path))) == 7
    again = Scripted()
    run(tmp_path, again, 10)
    assert sorted(again.calls) == [3, 5, 7]


def test_what_cannot_be_sent_is_not_recorded(tmp_path: Path) -> None:
    """A request whose file cannot be read has no entry, harms no other, and is asked once it is mended."""
    torn = Scripted(lambda number, attempt: SampleError("torn") if number % 3 == 0 else None)

    async def ask(describer: Scripted) -> list[Entry | None]:
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(describer, ledger, settings=Asking(), run_id="r", policy=QUICK) as asker,
        ):
            return await asker.ask(requests(40))

    found = asyncio.run(ask(torn))
    assert [entry is None for entry in found] == [number % 3 == 0 for number in range(40)]
    assert set(torn.calls.values()) == {1}
    assert len(list(iter_entries(tmp_path))) == 26
    mended = Scripted()
    assert None not in asyncio.run(ask(mended))
    assert sorted(mended.calls) == [number for number in range(40) if number % 3 == 0]


def test_an_unreadable_probe_ends_no_outage(tmp_path: Path) -> None:
    """While all are paused, a probe that cannot be sent gives its place to another."""
    failures = 30

    def script(number: int, attempt: int) -> UniBindError | None:
        nonlocal failures
        if failures > 0:
            failures -= 1
            return TransientError("down")
        return SampleError("torn") if number < 20 else None

    async def ask() -> list[Entry | None]:
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(Scripted(script), ledger, settings=Asking(), run_id="r", policy=QUICK) as asker,
        ):
            return await asker.ask(requests(40))

    found = asyncio.run(asyncio.wait_for(ask(), 20))
    assert [entry is None for entry in found] == [number < 20 for number in range(40)]


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
    kept = numbers(list(iter_entries(tmp_path)))
    assert 10 <= len(kept) <= 14 and 10 not in kept
    assert first.calls.total() == len(kept) + 1
    second = Scripted()
    run(tmp_path, second, 100)
    assert sorted(second.calls) == sorted(set(range(100)) - set(kept))


def test_every_caller_hears_of_the_end(tmp_path: Path) -> None:
    """Those who wait, those who wait for room, and those who come later; what is known is still given."""
    describer = Scripted(lambda number, attempt: RunError("401") if number == 700 else None)

    async def ask() -> None:
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(describer, ledger, settings=Asking(), run_id="r", policy=QUICK) as asker,
        ):
            plan = requests(3000)
            results = await asyncio.gather(
                *(asker.ask(plan[start : start + 300]) for start in range(0, 3000, 300)),
                return_exceptions=True,
            )
            assert sum(isinstance(result, RunError) for result in results) >= 7
            with pytest.raises(RunError, match="401"):
                await asker.ask(plan[2999:])
            assert None not in await asker.ask(plan[:10])

    asyncio.run(ask())


def test_a_bug_in_the_describer_is_not_swallowed(tmp_path: Path) -> None:
    """An error that is none of ours ends the run as it is."""

    def script(number: int, attempt: int) -> DescriberError | None:
        raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError, match="bug"):
        run(tmp_path, Scripted(script), 10)


@pytest.mark.parametrize("way", ["cancelled", "error"])
def test_calls_in_flight_come_home_when_the_block_is_left(tmp_path: Path, way: str) -> None:
    """Ctrl-C or an error elsewhere: what was sent is waited for and recorded; nothing else is sent."""
    describer = Scripted(seconds=0.1)

    async def ask() -> None:
        async with (
            open_ledger(tmp_path) as ledger,
            open_asker(describer, ledger, settings=Asking(), run_id="r", policy=QUICK) as asker,
        ):
            asking = asyncio.create_task(asker.ask(requests(100)))
            await asyncio.sleep(0.05)
            asking.cancel()
            if way == "error":
                raise ValueError("elsewhere")
            await asking

    with pytest.raises(asyncio.CancelledError if way == "cancelled" else ValueError):
        asyncio.run(ask())
    assert numbers(list(iter_entries(tmp_path))) == sorted(describer.calls) == [0, 1, 2, 3]


def test_a_hanging_call_is_tried_again(tmp_path: Path) -> None:
    """A call that does not come back within `call_s` is one failed attempt."""

    class Hanging(Scripted):
        async def answer(self, request: Request) -> Reply:
            if request.sample_index == 1 and self.calls[1] == 0:
                self.calls[1] += 1
                await asyncio.sleep(60)
            return await super().answer(request)

    describer = Hanging()
    entries = run(tmp_path, describer, 5, replace(QUICK, call_s=0.1))
    assert describer.calls[1] == 2
    assert [entry.attempts for entry in entries if json.loads(entry.request)["sample_index"] == 1] == [2]


def test_one_request_past_its_deadline_is_kept_as_failed(tmp_path: Path) -> None:
    """Where others were answered meanwhile, the request is at fault and the run goes on."""
    describer = Scripted(lambda number, attempt: TransientError("500") if number == 0 else None, seconds=0.01)
    entries = run(tmp_path, describer, 80, replace(QUICK, deadline_s=0.3, concurrency=2))
    assert [entry.error for entry in entries if entry.error] == ["no answer within 0.3 s: 500"]
    assert len(entries) == 80


def test_an_outage_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Longer than every deadline: no row is blamed, few calls are made, and the run goes on by itself."""
    caplog.set_level(logging.WARNING)
    start = None

    def script(number: int, attempt: int) -> DescriberError | None:
        nonlocal start
        now = asyncio.get_running_loop().time()
        start = start or now
        return TransientError("connection refused") if now - start < 1.0 else None

    describer = Scripted(script)
    entries = run(tmp_path, describer, 50, replace(QUICK, deadline_s=0.2))
    assert [entry.error for entry in entries if entry.error] == []
    assert describer.calls.total() < 50 + 60
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "connection refused" in caplog.messages[0]


def test_one_request_alone_waits_an_outage_out(tmp_path: Path) -> None:
    """Too few failures to open the breaker: its deadline opens it, and the request is asked on."""
    describer = Scripted(lambda number, attempt: TransientError("503") if attempt < 8 else None)
    (entry,) = run(tmp_path, describer, 1, replace(QUICK, deadline_s=0.02, first_pause_s=0.02))
    assert (entry.error, entry.attempts) == (None, 8)


def test_an_endpoint_that_answers_nobody_stops_the_run(tmp_path: Path) -> None:
    """No row is blamed for an outage: nothing is recorded, and the next run asks again."""
    describer = Scripted(lambda number, attempt: TransientError("connection refused"))
    with pytest.raises(RunError, match="connection refused; run again to continue"):
        run(tmp_path, describer, 10, replace(QUICK, deadline_s=0.1, outage_s=0.5))
    assert list(iter_entries(tmp_path)) == []


def test_throttling_for_ever_blames_no_row(tmp_path: Path) -> None:
    """A server that throttles one request for ever stops the run instead of failing the row."""
    describer = Scripted(lambda number, attempt: ThrottledError("429") if number == 5 else None)
    policy = replace(QUICK, deadline_s=0.05, outage_s=0.3)
    with pytest.raises(RunError, match="429; run again"):
        run(tmp_path, describer, 20, policy)
    assert numbers(list(iter_entries(tmp_path))) == [number for number in range(20) if number != 5]


def test_a_ledger_that_cannot_write_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is asked of a paid endpoint when answers cannot be kept."""
    describer = Scripted(seconds=0.001)

    def full(self: Ledger, entries: list[Entry]) -> None:
        raise KnowledgeBaseError("disk full")

    monkeypatch.setattr(Ledger, "_commit", full)
    with pytest.raises(KnowledgeBaseError, match="disk full"):
        run(tmp_path, describer, 10_000)
    assert describer.calls.total() < 2000


def test_the_budget_is_never_passed(tmp_path: Path) -> None:
    """By the describer's own count: what was answered has cost no more, and the error says how to go on."""
    plan = requests(200, replace(BASE, max_tokens=100_000))
    worst = worst_case(PRICE, plan[0]) or 0.0
    describer = Scripted(seconds=0.001)
    describer.usage = {"prompt_tokens": 10, "completion_tokens": 49_990}  # 0.05 dollars
    policy = replace(QUICK, price=PRICE, budget_usd=1.0)
    for _ in range(2):  # the second run counts what the first has spent
        (result,) = asyncio.run(ask_in(tmp_path, describer, [plan], policy))
        assert isinstance(result, RunError)
        for words in ("$1 ", f"${0.05 * describer.calls.total():.4f}", f"${worst:.6f}", "run again"):
            assert words in str(result)
        assert 1.0 - worst < 0.05 * describer.calls.total() <= 1.0
    assert len(list(iter_entries(tmp_path))) == describer.calls.total() == 18


def test_answers_without_usage_count_in_full(tmp_path: Path) -> None:
    """The budget books their worst case, in this run and the next; the entry's cost stays unknown."""
    plan = requests(50, replace(BASE, max_tokens=100_000))
    describer = Scripted()
    policy = replace(QUICK, price=PRICE, budget_usd=1.0)
    for _ in range(2):
        (result,) = asyncio.run(ask_in(tmp_path, describer, [plan], policy))
        assert isinstance(result, RunError)
        assert describer.calls.total() == 9
    assert {entry.cost_usd for entry in list(iter_entries(tmp_path))} == {None}


def test_answers_that_broke_off_count_in_full(tmp_path: Path) -> None:
    """A torn answer may have been charged for: the budget allows for it, in this run and the next."""
    plan = requests(50, replace(BASE, max_tokens=100_000))
    describer = Scripted(lambda number, attempt: TransientError("torn", maybe_paid=True))
    policy = replace(QUICK, price=PRICE, budget_usd=1.0)
    for _ in range(2):
        (result,) = asyncio.run(ask_in(tmp_path, describer, [plan], policy))
        assert isinstance(result, RunError) and "budget" in str(result)
        assert describer.calls.total() == 9


def test_reuse_asks_only_what_was_cut_off(tmp_path: Path) -> None:
    """With a larger max_tokens, whole answers are recorded under the new keys; else all are asked."""
    old = requests(10, replace(BASE, max_tokens=40))
    new = requests(10, replace(BASE, max_tokens=80))

    class Cut(Scripted):
        async def answer(self, request: Request) -> Reply:
            body = (await super().answer(request)).body
            return Reply(body.replace("stop", "length") if request.sample_index >= 7 else body)

    describer = Cut()
    asyncio.run(ask_in(tmp_path, describer, [old]))
    seen: list[Progress] = []
    policy = replace(QUICK, reuse=True)
    (result,) = asyncio.run(ask_in(tmp_path, describer, [new], policy, seen.append))
    assert describer.calls == {number: 1 + (number >= 7) for number in range(10)}
    assert isinstance(result, list)
    assert [entry and (entry.key, entry.attempts) for entry in result] == [
        (request_key(request), int(request.sample_index >= 7)) for request in new
    ]
    assert (seen[-1].answered, seen[-1].from_ledger) == (3, 7)
    asyncio.run(ask_in(tmp_path, describer, [requests(10, replace(BASE, max_tokens=90))]))
    assert describer.calls.total() == 10 + 3 + 10


def test_progress_is_told_seldom_and_at_the_end(tmp_path: Path) -> None:
    """A thousand answers are a few reports, the last of them complete."""
    seen: list[Progress] = []
    asyncio.run(ask_in(tmp_path, Scripted(), [requests(1000)], on_progress=seen.append))
    assert 1 <= len(seen) < 100
    assert seen[-1] == Progress(1000, 0, 0, 0, QUICK.concurrency, None, 0.0, None)


def test_progress_says_why_nobody_sends(tmp_path: Path) -> None:
    """A pause shows with its reason."""
    seen: list[Progress] = []
    describer = Scripted(
        lambda number, attempt: ThrottledError("slow down", retry_after=0.5) if attempt == 1 else None
    )
    asyncio.run(ask_in(tmp_path, describer, [requests(1)], on_progress=seen.append))
    assert "slow down" in [progress.paused for progress in seen]
    assert seen[-1].paused is None


def test_the_policy_follows_from_settings_and_describer() -> None:
    """An endpoint gets the set deadline, a third of it per call; a model in this process is waited for."""
    online = Scripted()
    online.source = "online"
    policy = policy_for(online, Asking(request_timeout_s=90.0))
    assert (policy.concurrency, policy.deadline_s, policy.call_s) == (256, 90.0, 30.0)
    assert policy_for(online, Asking(concurrency=1024)).concurrency == 1024
    local = Scripted()
    local.source = "local"
    policy = policy_for(local, Asking())
    assert (policy.concurrency, policy.call_s) == (8, 3600.0)
    assert policy_for(FakeDescriber(), Asking()).concurrency == 8
    local.concurrency = 3  # type: ignore[attr-defined]
    assert policy_for(local, Asking()).concurrency == 3


def test_a_budget_needs_a_price() -> None:
    """Before anything is sent; what runs in this process costs nothing and needs none."""
    describer = Scripted()
    with pytest.raises(ProjectError, match=r"price of 'm' is not known.*price = "):
        policy_for(describer, Asking(budget_usd=1.0))
    assert policy_for(describer, Asking(budget_usd=1.0, price=PRICE)).budget_usd == 1.0
    describer.source = "local"
    assert policy_for(describer, Asking(budget_usd=1.0)).budget_usd is None
