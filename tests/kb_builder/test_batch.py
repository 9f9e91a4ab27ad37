"""kb_builder.batch: the Batch API over the ledger, against fake-openai."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from data.errors import ProjectError, RunError
from kb_builder import batch, batch_jobs
from kb_builder.batch import BatchAsker, Pace, open_batch_asker
from kb_builder.client import openai_client
from kb_builder.fake_openai import FakeSettings, serve_fake
from kb_builder.ledger import Entry, Ledger, open_ledger, read_entries
from kb_builder.request import Media, Request, request_key
from kb_builder.scheduler import Progress
from kb_builder.settings import Asking, Price

QUICK = Pace(quiet_s=0.05, poll_s=0.02, longest_poll_s=0.1, settle_s=0.05, first_pause_s=0.01)
FAKE = FakeSettings(batch_s=0.05)
ASKING = Asking(model="fake-1", submit="batch")
PRICE = Price(input=1.0, output=2.0, date="2026-01-01")


def requests(count: int, *, endpoint: str) -> list[Request]:
    return [
        Request(
            endpoint=endpoint,
            model="fake-1",
            messages=(("user", f'Describe "ball {number}".'),),
            temperature=0.5,
            top_p=None,
            max_tokens=40,
            seed=number,
            sample_index=0,
        )
        for number in range(count)
    ]


@dataclass
class World:
    """A server, a knowledge base, and what was reported."""

    url: str
    kb: Path
    progress: list[Progress]

    def requests(self, count: int) -> list[Request]:
        from kb_builder.client import endpoint_identity

        return requests(count, endpoint=endpoint_identity(self.url))

    @asynccontextmanager
    async def asker(
        self, *, pace: Pace = QUICK, load: Any = None, **settings: Any
    ) -> AsyncIterator[tuple[BatchAsker, Ledger]]:
        client = openai_client(model="fake-1", base_url=self.url, api_key_env="UNIBIND_NONE", load=load)
        try:
            async with (
                open_ledger(self.kb) as ledger,
                open_batch_asker(
                    self.kb,
                    ledger,
                    client,
                    settings=replace(ASKING, **settings),
                    run_id="r",
                    on_progress=self.progress.append,
                    pace=pace,
                ) as asker,
            ):
                yield asker, ledger
        finally:
            await client.close()

    async def stats(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.url.removesuffix("/v1") + "/_fake/stats") as response,
        ):
            told: dict[str, Any] = await response.json()
            return told


def run(tmp_path: Path, play: Callable[[World], Any], fake: FakeSettings = FAKE) -> World:
    world = World("", tmp_path / "kb", [])

    async def go() -> None:
        async with serve_fake(fake) as url:
            world.url = url
            async with asyncio.timeout(60):
                await play(world)

    asyncio.run(go())
    return world


def test_many_callers_share_files(tmp_path: Path) -> None:
    """Requests of several callers go out in files of the wanted size, come back in order, and are recorded."""

    async def play(world: World) -> None:
        asked = world.requests(25)
        async with world.asker(pace=replace(QUICK, file_requests=10), price=PRICE) as (asker, ledger):
            found = await asyncio.gather(*(asker.ask(asked[start : start + 5]) for start in range(0, 25, 5)))
            entries = [entry for each in found for entry in each]
            assert [entry.key for entry in entries if entry] == [request_key(each) for each in asked]
            assert await asker.ask(asked) == entries
            assert ledger.spent() == pytest.approx(sum(entry.cost_usd or 0 for entry in entries if entry))
        stats = await world.stats()
        assert (stats["batches"], stats["batch_requests"], stats["distinct"]) == (3, 25, 25)

    world = run(tmp_path, play)
    entries = read_entries(world.kb)
    assert len(entries) == 25
    for entry in entries:
        assert (entry.source, entry.provider, entry.attempts, entry.latency_ms) == ("batch", "openai", 1, 0.0)
        usage = json.loads(entry.answer or "")["usage"]
        full = (usage["prompt_tokens"] + 2.0 * usage["completion_tokens"]) / 1e6
        assert entry.cost_usd == pytest.approx(full / 2)
    last = world.progress[-1]
    assert (last.answered, last.failed, last.from_ledger, last.in_flight) == (25, 0, 25, 0)
    assert last.spent_usd == pytest.approx(last.saved_usd)
    assert not (world.kb / "batches").exists()
