"""Several endpoints of one model, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from data.errors import RunError, TransientError
from kb_builder.ask.endpoint.client import endpoint_of
from kb_builder.ask.endpoint.pool import Pool
from kb_builder.ask.ledger import Entry, iter_entries, open_ledger
from kb_builder.ask.policy import policy_for
from kb_builder.ask.request import Request
from kb_builder.ask.scheduler import open_asker
from kb_builder.ask.session import AskingBar, open_asking
from kb_builder.describers.choose import make_describer
from kb_builder.fake_openai import FakeSettings, serve_fake
from kb_builder.settings import DescribeCategories

SETTINGS = DescribeCategories(describer="openai", model="m", api_key_env="UNIBIND_NONE", concurrency=8)
QUICK = {"first_pause_s": 0.005, "longest_pause_s": 0.05, "probe_s": 0.02}


def plan(endpoint: str, count: int) -> list[Request]:
    return [
        Request(
            endpoint=endpoint,
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


async def ask_at(kb: Path, urls: Sequence[str], count: int, **changes: Any) -> list[Entry | None]:
    """The entries of `count` requests, asked of all these addresses."""
    settings = replace(SETTINGS, base_url=tuple(urls) if len(urls) > 1 else urls[0])
    describer = make_describer(settings)
    policy = replace(policy_for(describer, settings), **QUICK | changes)
    try:
        async with (
            open_ledger(kb) as ledger,
            open_asker(describer, ledger, settings=settings, run_id="r", policy=policy) as asker,
        ):
            return await asker.ask(plan(describer.endpoint, count))
    finally:
        await describer.close()


async def seen(url: str) -> dict[str, Any]:
    where = url.removesuffix("/v1") + "/_fake/stats"
    async with aiohttp.ClientSession() as session, session.get(where) as response:
        stats: dict[str, Any] = await response.json()
        return stats


def run(kb: Path, servers: Sequence[FakeSettings], count: int, **changes: Any) -> list[dict[str, Any]]:
    """What each server saw of `count` requests, all of which were answered, once."""

    async def ask() -> list[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(serve_fake(each)) for each in servers]
            entries = await ask_at(kb, urls, count, **changes)
            assert all(entry is not None and entry.answer is not None for entry in entries)
            return [await seen(url) for url in urls]

    stats = asyncio.run(ask())
    assert sum(each["answers"] for each in stats) == count == len(list(iter_entries(kb)))
    return stats


def test_requests_go_where_the_fewest_are_in_flight(tmp_path: Path) -> None:
    """Equal servers get equal shares; one that takes four times as long gets far fewer."""
    equal = run(tmp_path / "a", [FakeSettings(latency_s=0.01)] * 3, 90)
    assert all(20 <= each["answers"] <= 40 for each in equal)
    fast, slow = run(tmp_path / "b", [FakeSettings(latency_s=0.01), FakeSettings(latency_s=0.08)], 200)
    assert fast["answers"] > 2 * slow["answers"] > 0


def test_an_endpoint_that_fails_is_set_aside_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is away the others answer everything; nothing is asked twice; later it answers again."""
    away = FakeSettings(latency_s=0.02, outages=((0.0, 1.0),))
    good, back = run(tmp_path, [FakeSettings(latency_s=0.02), away], 500)
    assert 0 < back["faults"]["outage"] <= 30
    assert back["answers"] > 0 and good["answers"] > back["answers"]
    said = [record.message for record in caplog.records]
    assert sum("is set aside" in line for line in said) == 1
    assert sum("answers again" in line for line in said) == 1


def test_one_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    """Nobody listens at one address: the other answers all, each request at its first attempt."""

    async def ask() -> list[Entry | None]:
        async with serve_fake(FakeSettings()) as url:
            return await ask_at(tmp_path, ["http://127.0.0.1:9/v1", url], 50)

    entries = asyncio.run(ask())
    assert {entry.attempts for entry in entries if entry is not None} == {1}
    assert len(entries) == 50


def test_one_that_hangs_is_set_aside(tmp_path: Path) -> None:
    """Its calls end at their deadline, and are asked of the other."""
    hanging, good = run(
        tmp_path, [FakeSettings(faults={"hang": 1.0}), FakeSettings(latency_s=0.01)], 60, call_s=0.3
    )
    assert good["answers"] == 60
    assert hanging["requests"] < 20


def test_one_that_throttles_gets_fewer(tmp_path: Path) -> None:
    """A 429 with Retry-After sets one endpoint aside, never the run."""
    throttled = FakeSettings(faults={"throttle_seconds": 1.0}, retry_after_s=60.0)
    full, good = run(tmp_path, [throttled, FakeSettings(latency_s=0.01)], 80)
    assert good["answers"] == 80 and full["requests"] <= 8


def test_all_of_them_away_is_an_outage(tmp_path: Path) -> None:
    """Then the run pauses as with one endpoint, and stops in the end, resumable."""

    async def ask() -> None:
        dead = ["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"]
        await ask_at(tmp_path, dead, 50, outage_s=0.5)

    with pytest.raises(RunError, match="run again to continue"):
        asyncio.run(ask())
    assert list(iter_entries(tmp_path)) == []


def test_an_answer_that_broke_off_is_not_asked_elsewhere_at_once(tmp_path: Path) -> None:
    """It may have been paid for: the scheduler counts it, and then asks again."""

    async def ask() -> None:
        async with serve_fake(FakeSettings(faults={"torn_json": 1.0})) as torn, serve_fake() as good:
            settings = replace(SETTINGS, base_url=(torn, good))
            describer = make_describer(settings)
            try:
                await describer.answer(plan("e", 1)[0])
            finally:
                await describer.close()
                assert (await seen(good))["requests"] == 0

    with pytest.raises(TransientError) as caught:
        asyncio.run(ask())
    assert caught.value.maybe_paid


def test_the_key_does_not_tell_who_answered(tmp_path: Path) -> None:
    """Order, and more addresses, change no request; what one of them answered alone is the answer of all."""

    async def ask() -> list[int]:
        async with serve_fake() as one, serve_fake() as other, serve_fake() as third:
            counts = []
            for urls in ([one], [one, other], [other, one], [third, other, one]):
                await ask_at(tmp_path, urls, 20)
                counts.append(sum([(await seen(url))["requests"] for url in (one, other, third)]))
            assert endpoint_of((one, other)) == endpoint_of((other, one)) == min(one, other)
            return counts

    assert asyncio.run(ask()) == [20, 20, 20, 20]
    copies = [entry for entry in list(iter_entries(tmp_path)) if entry.attempts == 0]
    assert all(entry.cost_usd == 0.0 for entry in copies)


def test_batches_need_one_address(tmp_path: Path) -> None:
    """A batch belongs to the endpoint that it was sent to."""
    settings = replace(SETTINGS, submit="batch", base_url=("http://a.example/v1", "http://b.example/v1"))
    describer = make_describer(settings)
    assert isinstance(describer, Pool)

    async def ask() -> None:
        with AskingBar("t", unit="t", total=1) as bar:
            async with open_asking(tmp_path, describer, settings, run_id="r", bar=bar):
                pass

    with pytest.raises(RunError, match="a single `base_url`"):
        asyncio.run(ask())
