"""The scheduler with the real client and a real server on loopback: every class of error, and every limit."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from data.errors import RunError
from kb_builder.ask.asker import Progress
from kb_builder.ask.ledger import Entry, iter_entries, open_ledger
from kb_builder.ask.policy import policy_for
from kb_builder.ask.request import Request
from kb_builder.ask.scheduler import open_asker
from kb_builder.describers.choose import openai_client
from kb_builder.fake_openai import HOSTILE, PASSING, FakeSettings, all_faults, serve_fake
from kb_builder.settings import Asking, Price

KEY = "sk-planted-key-of-the-user-0123456789"
PRICE = Price(input=1000.0, output=1000.0, date="2026-01-01")
# A request's deadline is far away: where one is given up, something else is wrong.
PATIENT = Asking(model="m", request_timeout_s=60.0, concurrency=16)


class Outcome:
    """What a run ended with, and what the server counted."""

    def __init__(self, kb: Path) -> None:
        self.kb = kb
        self.error: BaseException | None = None
        self.stats: dict[str, Any] = {}
        self.progress: list[Progress] = []

    @property
    def entries(self) -> list[Entry]:
        return list(iter_entries(self.kb))

    @property
    def failures(self) -> list[str]:
        return [entry.error for entry in self.entries if entry.error is not None]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends this key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def run(kb: Path, server: FakeSettings, count: int, settings: Asking = PATIENT, **changes: Any) -> Outcome:
    """Ask a server of these settings for `count` answers. `changes` are of the policy."""

    async def ask() -> Outcome:
        outcome = Outcome(kb)
        async with serve_fake(server) as url:
            client = openai_client(model="m", base_url=url, api_key_env="OPENAI_API_KEY")
            policy = replace(policy_for(client, settings), **quick | changes)
            try:
                async with (
                    open_ledger(kb) as ledger,
                    open_asker(
                        client,
                        ledger,
                        settings=settings,
                        run_id="r",
                        on_progress=outcome.progress.append,
                        policy=policy,
                    ) as asker,
                ):
                    await asker.ask(plan(count))
            except Exception as error:
                outcome.error = error
            finally:
                await client.close()
            where = url.removesuffix("/v1") + "/_fake/stats"
            async with aiohttp.ClientSession() as session, session.get(where) as response:
                outcome.stats = await response.json()
        return outcome

    quick: dict[str, Any] = {"first_pause_s": 0.005, "longest_pause_s": 0.05, "probe_s": 0.02}
    return asyncio.run(ask())


def plan(count: int) -> list[Request]:
    """Requests that no two servers, ports or runs tell apart."""
    return [
        Request(
            endpoint="http://127.0.0.1/v1",
            model="m",
            messages=(("user", f'Describe "thing {number}".'),),
            temperature=0.5,
            top_p=None,
            max_tokens=40,
            seed=number,
            sample_index=number,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("fault", sorted(PASSING))
def test_what_passes_is_asked_again_until_it_is_answered(tmp_path: Path, fault: str) -> None:
    """A third of the answers fail in one way: in the end every request has its answer, and exactly one."""
    server = FakeSettings(faults={fault: 0.33}, retry_after_s=0.02)
    patience: dict[str, Any] = {"call_s": 0.2} if fault == "hang" else {}
    outcome = run(tmp_path, server, 40, **patience)
    assert outcome.error is None
    assert outcome.failures == []
    assert len(outcome.entries) == 40
    assert outcome.stats["faults"][fault] > 0
    assert outcome.stats["answers"] == 40
    attempts = sum(entry.attempts for entry in outcome.entries)
    assert attempts == outcome.stats["requests"]


@pytest.mark.parametrize("fault", sorted(set(HOSTILE) - {"redirect_away", "odd_charset"}))
def test_what_is_hostile_is_bounded_and_asked_again(tmp_path: Path, fault: str) -> None:
    """A quarter of the answers drips, swells, nests or lies: none hangs, none ends the run, all are
    answered."""
    patience: dict[str, Any] = {"call_s": 1.0} if fault in {"drip", "endless_events"} else {}
    outcome = run(tmp_path, FakeSettings(faults={fault: 0.25}), 20, **patience)
    assert outcome.error is None and outcome.failures == []
    assert outcome.stats["faults"][fault] > 0
    assert len(outcome.entries) == 20 and all(entry.answer for entry in outcome.entries)


def test_a_redirect_to_another_address_stops_the_run(tmp_path: Path) -> None:
    """Nothing is sent there, and the message says where it leads."""
    outcome = run(tmp_path, FakeSettings(faults={"redirect_away": 1.0}), 20)
    assert isinstance(outcome.error, RunError)
    assert "another address, http://localhost:" in str(outcome.error)
    assert outcome.entries == []
    assert outcome.stats["faults"] == {"redirect_away": outcome.stats["requests"]}


def test_an_odd_charset_is_no_fault(tmp_path: Path) -> None:
    """The answer is JSON, whatever its header says."""
    outcome = run(tmp_path, FakeSettings(faults={"odd_charset": 1.0}), 5)
    assert outcome.error is None and len(outcome.entries) == 5
    assert all(entry.attempts == 1 for entry in outcome.entries)


def test_all_faults_at_once(tmp_path: Path) -> None:
    """A third of everything fails somehow: nothing is lost or doubled, and only refusals for good remain."""
    passing = all_faults(0.3, [name for name in PASSING if name != "throttle_date"])  # a second's pause each
    lasting = {"policy": 0.1, "refusal_field": 0.05, "length": 0.05}
    outcome = run(tmp_path, FakeSettings(faults=passing | lasting, retry_after_s=0.02), 300, call_s=0.2)
    assert outcome.error is None
    entries = outcome.entries
    assert len(entries) == 300
    assert sorted(json.loads(entry.request)["seed"] for entry in entries) == list(range(300))
    assert 10 < len(outcome.failures) < 60
    assert all("status 400" in failure for failure in outcome.failures)
    assert outcome.stats["answered_again"] == {}


def test_a_wrong_key_stops_the_run_and_is_written_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server quotes the key; it is in no byte of the ledger, no log line and no message."""
    caplog.set_level(logging.DEBUG)
    outcome = run(tmp_path, FakeSettings(api_key="sk-another-key-0123456789"), 100)
    assert isinstance(outcome.error, RunError)
    assert "check the API key" in str(outcome.error)
    assert outcome.entries == []
    assert outcome.stats["requests"] <= PATIENT.concurrency
    said = f"{outcome.error!r} {vars(outcome.error)} {outcome.progress} {caplog.text}"
    assert KEY not in said
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_used_up_quota_stops_the_run_which_then_goes_on(tmp_path: Path) -> None:
    """What was answered is kept; with money on the account again only the rest is asked."""
    first = run(tmp_path, FakeSettings(quota_requests=30), 100)
    assert isinstance(first.error, RunError) and "quota" in str(first.error)
    assert len(first.entries) == 30
    second = run(tmp_path, FakeSettings(), 100)
    assert second.error is None
    assert (second.stats["answers"], len(second.entries)) == (70, 100)


def test_an_unknown_model_stops_the_run(tmp_path: Path) -> None:
    """A 404 is wrong for all requests: at most those in flight are sent."""
    outcome = run(tmp_path, FakeSettings(models=("other",)), 100)
    assert isinstance(outcome.error, RunError) and "check `model`" in str(outcome.error)
    assert outcome.stats["requests"] <= PATIENT.concurrency
    assert outcome.entries == []


def test_an_outage_in_the_middle_is_waited_out(tmp_path: Path) -> None:
    """The breaker pauses everybody, few requests knock, no row is blamed, and the run ends complete."""
    server = FakeSettings(latency_s=0.01, outages=((0.1, 1.1),))
    outcome = run(tmp_path, server, 300)
    assert outcome.error is None
    assert outcome.failures == []
    assert len(outcome.entries) == 300
    assert outcome.stats["requests"] < 300 + 150
    assert any(progress.paused for progress in outcome.progress)


def test_a_server_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    """Refused connections before the first answer are no failure of any request."""
    outcome = run(tmp_path, FakeSettings(slow_start_s=0.5, slow_start="disconnect"), 50)
    assert outcome.error is None
    assert outcome.failures == []
    assert len(outcome.entries) == 50


def test_the_calls_in_flight_adapt_to_what_the_server_takes(tmp_path: Path) -> None:
    """64 at once are asked for, 8 are taken: the run finds that out, and few requests are throttled."""
    server = FakeSettings(latency_s=0.01, max_in_flight=8)
    outcome = run(tmp_path, server, 600, replace(PATIENT, concurrency=64))
    assert outcome.error is None
    assert len(outcome.entries) == 600
    assert outcome.stats["most_in_flight"] <= 64
    assert min(progress.limit for progress in outcome.progress) <= 16
    assert outcome.stats["requests"] < 2 * 600


@pytest.mark.parametrize("who", ["settings", "headers"])
def test_requests_per_minute_are_kept(tmp_path: Path, who: str) -> None:
    """Told by the settings or by the answers' headers: hardly anybody is throttled once they are known."""
    server = FakeSettings(rpm=2400)
    settings = replace(PATIENT, requests_per_minute=2400 if who == "settings" else None, concurrency=4)
    outcome = run(tmp_path, server, 100, settings)
    assert outcome.error is None
    assert len(outcome.entries) == 100
    assert outcome.stats["requests"] <= 100 + 4


def test_tokens_per_minute_are_kept(tmp_path: Path) -> None:
    """The headers tell the tokens that are left: they are reserved before a request is sent."""
    outcome = run(tmp_path, FakeSettings(tpm=6000), 120, replace(PATIENT, concurrency=4))
    assert outcome.error is None
    assert len(outcome.entries) == 120
    assert outcome.stats["requests"] <= 120 + 12


def test_the_budget_holds_by_the_servers_own_count(tmp_path: Path) -> None:
    """All that the server has answered, torn answers too, costs no more than the budget, over both runs."""
    settings = replace(PATIENT, price=PRICE, budget_usd=2.0)
    server = FakeSettings(faults={"torn_json": 0.1, "500": 0.1, "disconnect_body": 0.1})
    answers = 0
    for _ in range(2):
        outcome = run(tmp_path, server, 100, settings)
        assert isinstance(outcome.error, RunError) and "budget" in str(outcome.error)
        answers += outcome.stats["answers"]
    costs = [entry.cost_usd for entry in outcome.entries]
    assert len(costs) == answers > 5
    assert None not in costs
    assert 1.0 < sum(cost or 0.0 for cost in costs) <= 2.0
    assert outcome.progress[-1].spent_usd == pytest.approx(sum(cost or 0.0 for cost in costs))
