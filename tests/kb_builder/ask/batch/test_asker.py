"""kb_builder.ask.batch.asker: the Batch API over the ledger, against fake-openai."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import random
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image

from data.errors import ProjectError, RunError, SampleError
from kb_builder.ask.asker import Progress
from kb_builder.ask.batch import jobs as batch_jobs
from kb_builder.ask.batch import run as batch_run
from kb_builder.ask.batch.api import BatchApi
from kb_builder.ask.batch.asker import BatchAsker, open_batch_asker
from kb_builder.ask.batch.run import Pace
from kb_builder.ask.endpoint.client import ChatClient
from kb_builder.ask.ledger import Ledger, iter_entries, open_ledger
from kb_builder.ask.request import Media, Request, request_json, request_key
from kb_builder.describers.choose import make_describer, openai_client
from kb_builder.fake_openai import FakeSettings, serve_fake
from kb_builder.settings import Asking, DescribeCategories, Price

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
        from kb_builder.ask.request import endpoint_identity

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
    """Requests of several callers go out in files of the wanted size, come back in order, are recorded."""

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
    entries = list(iter_entries(world.kb))
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


def test_what_is_told_while_batches_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """States and counts are reported, each batch's begin and end is logged, and no key is in any of it."""
    key = "sk-planted-0123456789"
    monkeypatch.setenv("UNIBIND_NONE", key)
    caplog.set_level(logging.WARNING, logger="kb_builder.ask.batch.progress")

    async def play(world: World) -> None:
        async with world.asker(pace=replace(QUICK, file_requests=4)) as (asker, _):
            assert all(await asker.ask(world.requests(8)))

    world = run(tmp_path, play, replace(FAKE, batch_s=1.0, api_key=key))
    told = [progress.paused for progress in world.progress if progress.paused]
    both = [text for text in told if text.startswith("waiting for 2 batches at the server (")]
    assert any(re.search(r"\(2 in_progress\), \d of 8 requests done; .* run it again", text) for text in both)
    assert world.progress[-1].paused is None
    lines = [record.getMessage() for record in caplog.records]
    ids = [line.split()[1] for line in lines if " submitted: 4 requests; " in line]
    assert len(set(ids)) == 2
    ended = sorted(f"batch {each} ended as completed: 4 requests (4 answered, 0 failed)" for each in ids)
    assert sorted(line for line in lines if " ended " in line) == ended
    assert len(lines) == 4
    assert all(key not in text for text in (*told, *lines))


def test_a_batch_of_an_earlier_run_is_told_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Going on with a batch says which one, and that it is not submitted again."""

    async def play(world: World) -> None:
        with pytest.raises(_KilledError):
            async with world.asker() as (asker, _):
                with _killing(batch_jobs, "update", nth=2, after=True):
                    await asker.ask(world.requests(3))
        async with world.asker() as (asker, _):
            assert all(await asker.ask(world.requests(3)))

    run(tmp_path, play)
    begin, end = (
        record.getMessage() for record in caplog.records if record.name == "kb_builder.ask.batch.progress"
    )
    assert re.match(r"batch batch_\w+ was submitted before: 3 requests; ", begin)
    assert end.startswith(f"batch {begin.split()[1]} ended as completed")


def test_what_expired_or_failed_is_asked_again_alone(tmp_path: Path) -> None:
    """Answers of a batch that lost some are kept; only the others go into the next batch."""

    async def play(world: World) -> None:
        async with world.asker(pace=replace(QUICK, rounds=20)) as (asker, _):
            entries = await asker.ask(world.requests(60))
        assert all(entry and entry.answer for entry in entries)
        stats = await world.stats()
        faults = stats["faults"]
        assert faults["batch_expired"] and faults["batch_failed"]
        assert stats["batch_requests"] == 60 + faults["batch_expired"] + faults["batch_failed"]
        assert not stats["answered_again"]
        assert stats["batches"] == max(entry.attempts for entry in entries if entry)

    run(tmp_path, play, replace(FAKE, batch_expired=0.2, batch_failed=0.2))


def test_what_dies_again_and_again_fails_for_good(tmp_path: Path) -> None:
    """After the last round a request has an entry that says why."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            expired, *_ = await asker.ask(world.requests(3))
        assert expired and expired.answer is None and expired.attempts == 3
        assert "batch_expired" in (expired.error or "") and "in 3 batches" in (expired.error or "")
        assert (await world.stats())["batches"] == 3

    run(tmp_path, play, replace(FAKE, batch_expired=1.0))


def test_a_request_that_the_server_refuses_fails_alone(tmp_path: Path) -> None:
    """Content policy is final for its request, and for no other."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            entries = await asker.ask(world.requests(40))
        errors = [entry.error for entry in entries if entry and entry.error]
        assert 0 < len(errors) < 40
        assert all("status 400" in error for error in errors)
        assert (await world.stats())["batches"] == 1

    run(tmp_path, play, replace(FAKE, faults={"policy": 0.4}))


def test_a_short_queue_at_the_server(tmp_path: Path) -> None:
    """Where the server's queue is too short for a file and nothing of ours is in it, files become smaller."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            entries = await asker.ask(world.requests(8))
        assert all(entry and entry.answer and entry.attempts == 1 for entry in entries)
        with closing(sqlite3.connect(world.kb / "ledger.sqlite")) as connection:
            said = connection.execute("SELECT requests, state FROM batch_jobs").fetchall()
        assert {(8, "dead"), (4, "dead")} < set(said)
        assert sum(count for count, state in said if state == "done") == 8

    run(tmp_path, play, replace(FAKE, batch_rejects=2))


def test_a_queue_that_our_own_batches_fill(tmp_path: Path) -> None:
    """Where batches of ours are in the server's queue, the refused file waits until one has ended."""

    async def play(world: World) -> None:
        async with world.asker(pace=replace(QUICK, file_requests=4)) as (asker, _):
            api = asker._run.api
            create, made = api.create, []

            async def fail_second(job: Any) -> Any:
                made.append(await create(job))
                return made[-1]

            retrieve = api.retrieve

            async def refused(batch_id: str) -> Any:
                found = await retrieve(batch_id)
                if found is not None and batch_id == made[0].id and asker._run.queue.room.is_set():
                    # The first ends only after the refusal of the second: it is what fills the queue.
                    return found.model_copy(update={"status": "in_progress"})
                if len(made) > 1 and batch_id == made[1].id and found is not None:
                    error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
                    return found.model_copy(
                        update={
                            "status": "failed",
                            "errors": type(found).model_construct(data=[_error(error)]),
                        }
                    )
                return found

            api.create, api.retrieve = fail_second, refused  # type: ignore[method-assign]
            entries = await asker.ask(world.requests(8))
            assert all(entry and entry.answer for entry in entries)
            assert len(made) == 3
            assert asker._run.queue.file_requests == 4

    run(tmp_path, play)


def _error(values: dict[str, Any]) -> Any:
    from openai.types import BatchError

    return BatchError.model_validate(values)


def test_a_file_that_the_server_refuses_stops_the_run(tmp_path: Path) -> None:
    """An unknown model refuses every line: the run ends with the server's words, and can be resumed."""

    async def play(world: World) -> None:
        for _ in range(2):
            async with world.asker() as (asker, ledger):
                with pytest.raises(RunError, match=r"batch .* was refused: line 1: .*correct the settings"):
                    await asker.ask(world.requests(3))
                assert batch_jobs.unfinished(ledger, world.requests(1)[0].endpoint) == []
        assert (await world.stats())["batches"] == 2

    run(tmp_path, play, replace(FAKE, models=("other",)))
    assert list(iter_entries(tmp_path / "kb")) == []


def test_one_bad_line_is_set_aside(tmp_path: Path) -> None:
    """A line that validation refuses fails for good; the rest of its file is submitted again."""

    async def play(world: World) -> None:
        asked = world.requests(5)
        asked[2] = replace(asked[2], model="other")
        async with world.asker() as (asker, _):
            entries = await asker.ask(asked)
        assert [bool(entry and entry.answer) for entry in entries] == [True, True, False, True, True]
        assert "validation" in ((entries[2] and entries[2].error) or "")
        stats = await world.stats()
        assert (stats["batches"], stats["batch_requests"]) == (2, 4)

    run(tmp_path, play)


def test_a_cancelled_batch_is_told(tmp_path: Path) -> None:
    """Somebody cancelled it on purpose: what it answered is kept, nothing is submitted by itself."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            asking = asyncio.create_task(asker.ask(world.requests(5)))
            async with aiohttp.ClientSession() as session:
                batches: list[Any] = []
                while not batches:
                    await asyncio.sleep(0.02)
                    async with session.get(f"{world.url}/batches") as response:
                        batches = (await response.json())["data"]
                (await session.post(f"{world.url}/batches/{batches[0]['id']}/cancel")).release()
            with pytest.raises(RunError, match=r"was cancelled; its answers so far are kept, \d of its 5"):
                await asking
            with pytest.raises(RunError, match="was cancelled"):
                await asker.ask(world.requests(6))
        assert (await world.stats())["batches"] == 1

    run(tmp_path, play, replace(FAKE, batch_s=5.0))


def test_a_wrong_key_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 ends the run before anything is submitted, and the key is in no message and no file."""
    monkeypatch.setenv("UNIBIND_NONE", "sk-planted-wrong-0123456789")

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            with pytest.raises(RunError, match="API key") as caught:
                await asker.ask(world.requests(2))
            assert "planted" not in str(caught.value)

    world = run(tmp_path, play, replace(FAKE, api_key="sk-right-0123456789"))
    for path in world.kb.rglob("*"):
        assert path.is_dir() or b"planted" not in path.read_bytes()


def test_media_are_inlined_while_the_file_is_written(tmp_path: Path) -> None:
    """Pictures go in as data URLs. One that is too large alone fails, one that is gone is left out."""

    def load(media: Media) -> dict[str, Any]:
        if media.sha256 == "gone":
            raise SampleError("gone.png: there is no such file")
        buffer = io.BytesIO()
        side = 100 if media.sha256 == "large" else 2
        Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side**2)).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

    async def play(world: World) -> None:
        asked = [
            replace(request, messages=(("user", ("What is it?", Media("image", name, "png"))),))
            for request, name in zip(world.requests(4), ("a", "gone", "large", "b"), strict=True)
        ]
        async with world.asker(pace=replace(QUICK, file_bytes=2000), load=load) as (asker, _):
            entries = await asker.ask(asked)
        assert entries[1] is None
        errors = [entry.error for entry in entries if entry]
        assert errors[0] is None and errors[2] is None
        assert "a batch file holds 2000" in (errors[1] or "")
        assert len(list(iter_entries(world.kb))) == 3

    run(tmp_path, play)


def test_files_are_cut_by_bytes(tmp_path: Path) -> None:
    """A file ends before the line that would make it too large."""

    async def play(world: World) -> None:
        async with world.asker(pace=replace(QUICK, file_bytes=1000)) as (asker, ledger):
            entries = await asker.ask(world.requests(10))
            jobs = ledger.read(lambda c: c.execute("SELECT requests, bytes FROM batch_jobs").fetchall())
        assert all(entry and entry.answer for entry in entries)
        assert len(jobs) > 1 and sum(count for count, _ in jobs) == 10
        assert all(size <= 1000 for _, size in jobs)

    run(tmp_path, play)


def test_the_budget_holds_before_anything_is_sent(tmp_path: Path) -> None:
    """A file holds what the budget allows at worst; when not one request fits, the run stops."""

    async def play(world: World) -> None:
        asked = world.requests(50)
        async with world.asker(price=PRICE, budget_usd=0.0008) as (asker, ledger):
            with pytest.raises(RunError, match=r"budget of \$0\.0008 is used up"):
                await asker.ask(asked)
            assert 0 < ledger.spent() <= 0.0008
        stats = await world.stats()
        assert stats["batches"] > 1
        assert 0 < stats["batch_requests"] < 50 and not stats["asked_again"]
        async with world.asker(price=PRICE, budget_usd=1.0) as (asker, _):
            assert all(await asker.ask(asked))
        assert not (await world.stats())["asked_again"]

    run(tmp_path, play)


def test_a_budget_without_a_price_is_refused(tmp_path: Path) -> None:
    """Nothing is guessed: the remedy is told before anything is asked."""

    async def play(world: World) -> None:
        with pytest.raises(ProjectError, match="price"):
            async with world.asker(budget_usd=1.0):
                pytest.fail("opened")

    run(tmp_path, play)


def test_answers_of_a_smaller_limit_are_used_again(tmp_path: Path) -> None:
    """With `reuse`, an answer that the old max_tokens did not cut off is not asked for again."""

    async def play(world: World) -> None:
        asked = world.requests(3)
        async with world.asker() as (asker, _):
            await asker.ask(asked)
        async with world.asker(reuse=True) as (asker, _):
            again = await asker.ask([replace(request, max_tokens=80) for request in asked])
        assert [entry.attempts for entry in again if entry] == [0, 0, 0]
        assert (await world.stats())["batches"] == 1

    run(tmp_path, play)


def test_a_failing_server_is_waited_for(tmp_path: Path) -> None:
    """What a lost answer may have done is looked for before it is done again: one upload, one batch."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            vendor = asker._run.client._client or asker._run.client._open()
            _lose_first_answer(vendor.files, "create")
            _lose_first_answer(vendor.batches, "create")
            _lose_first_answer(vendor.batches, "retrieve")
            entries = await asker.ask(world.requests(4))
            assert all(entry and entry.answer for entry in entries)
            files = [file.filename async for file in vendor.files.list(purpose="batch")]
            assert len(files) == 1
        stats = await world.stats()
        assert (stats["batches"], stats["batch_requests"]) == (1, 4)

    world = run(tmp_path, play)
    assert any(progress.paused for progress in world.progress)


def _lose_first_answer(resource: Any, name: str) -> None:
    """The server does what it is told, and the answer is lost on the way."""
    import httpx
    import openai

    call, lost = getattr(resource, name), []

    async def lose(*args: Any, **values: Any) -> Any:
        result = await call(*args, **values)
        if not lost:
            lost.append(result)
            raise openai.APIConnectionError(request=httpx.Request("POST", "http://127.0.0.1"))
        return result

    setattr(resource, name, lose)


def test_an_endpoint_that_stays_away_stops_the_run(tmp_path: Path) -> None:
    """After `outage_s` of failures the run ends, resumable."""

    async def play(world: World) -> None:
        world.url = "http://127.0.0.1:9/v1"  # nobody listens there
        async with world.asker(outage_s=0.2) as (asker, _):
            with pytest.raises(RunError, match=r"Batch API failed for 0\.2 s"):
                await asker.ask(world.requests(1))

    run(tmp_path, play)


def test_a_batch_that_the_server_does_not_know(tmp_path: Path) -> None:
    """Another account's key does not lead to paying twice; after a month the batch is given up."""

    async def play(world: World) -> None:
        asked = world.requests(2)
        with pytest.raises(_KilledError):
            async with world.asker() as (asker, _):
                with _killing(batch_jobs, "update", nth=2, after=True):
                    await asker.ask(asked)
        async with aiohttp.ClientSession() as session:
            (await session.post(world.url.removesuffix("/v1") + "/_fake/reset")).release()
        async with world.asker() as (asker, ledger):
            with pytest.raises(RunError, match=r"not known to .* use the API key"):
                await asker.ask(asked)
            await ledger.write(lambda c: c.execute("UPDATE batch_jobs SET created_at = 0"))
        async with world.asker() as (asker, _):
            assert all(await asker.ask(asked))

    run(tmp_path, play)


class _KilledError(Exception):
    """The process ended here."""


@contextmanager
def _killing(target: Any, name: str, *, nth: int = 1, after: bool) -> Iterator[list[str]]:
    """Let the nth call of an async function end the run, before or after it has done its work."""
    call = getattr(target, name)
    calls: list[str] = []

    async def kill(*args: Any, **values: Any) -> Any:
        calls.append(name)
        if len(calls) == nth and not after:
            raise _KilledError
        result = await call(*args, **values)
        if len(calls) == nth:
            raise _KilledError
        return result

    setattr(target, name, kill)
    try:
        yield calls
    finally:
        setattr(target, name, call)


@pytest.mark.parametrize(
    ("target", "name", "nth", "after"),
    [
        (batch_jobs, "plan", 1, True),
        (BatchApi, "upload", 1, False),
        (BatchApi, "upload", 1, True),
        (batch_jobs, "update", 1, True),
        (BatchApi, "create", 1, False),
        (BatchApi, "create", 1, True),
        (batch_jobs, "update", 2, True),
        (BatchApi, "retrieve", 1, True),
        (BatchApi, "download", 1, True),
        (batch_jobs, "settle", 1, False),
        (batch_jobs, "settle", 2, True),
        (batch_jobs, "end", 1, False),
        (batch_jobs, "end", 1, True),
    ],
)
def test_ended_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, nth: int, after: bool
) -> None:
    """Wherever a run ends, the next one goes on: each request is submitted once, each answer kept once."""
    monkeypatch.setattr(batch_run, "CHUNK", 3)

    async def play(world: World) -> None:
        asked = world.requests(8)
        with _killing(target, name, nth=nth, after=after) as calls, suppress(_KilledError):
            async with world.asker() as (asker, _):
                await asker.ask(asked)
        assert len(calls) >= nth
        async with world.asker() as (asker, ledger):
            entries = await asker.ask(asked)
            assert all(entry and entry.answer and entry.attempts == 1 for entry in entries)
            assert ledger.read(lambda c: c.execute("SELECT count(*) FROM batch_items").fetchone()) == (0,)
            assert (
                len(batch_jobs.unfinished(ledger, asked[0].endpoint)) <= 1
            )  # the one of which all is recorded
            vendor = asker._run.client._client or asker._run.client._open()
            assert len([file async for file in vendor.files.list(purpose="batch")]) == 1
        stats = await world.stats()
        assert (stats["batches"], stats["batch_requests"], stats["distinct"]) == (1, 8, 8)

    run(tmp_path, play)


def test_a_torn_upload_is_removed(tmp_path: Path) -> None:
    """A file of the right name and the wrong size is no file: it is deleted and uploaded again."""

    async def play(world: World) -> None:
        asked = world.requests(3)
        with pytest.raises(_KilledError):
            async with world.asker() as (asker, ledger):
                with _killing(batch_jobs, "plan", after=True):
                    await asker.ask(asked)
        async with world.asker() as (asker, ledger):
            (job,) = batch_jobs.unfinished(ledger, asked[0].endpoint)
            vendor = asker._run.client._client or asker._run.client._open()
            name = f"unibind-{job.token}.jsonl"
            await vendor.files.create(file=(name, b"{"), purpose="batch")
            assert all(await asker.ask(asked))
            (file,) = [file async for file in vendor.files.list(purpose="batch")]
            assert (file.filename, file.bytes) == (name, job.bytes)
        assert (await world.stats())["batches"] == 1

    run(tmp_path, play)


_RUN_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from kb_builder.ask.batch import jobs as batch_jobs, run as batch_run
from kb_builder.ask.batch.api import BatchApi
from kb_builder.ask.batch.asker import open_batch_asker
from kb_builder.ask.ledger import open_ledger
from kb_builder.ask.request import request_from_json
from kb_builder.describers.choose import openai_client
from kb_builder.settings import Asking

url, kb, asked, module, name, nth = sys.argv[1:]
batch_run.CHUNK = 3
target = {"jobs": batch_jobs, "api": BatchApi}[module]
call, calls = getattr(target, name), []

async def die(*args, **values):
    result = await call(*args, **values)
    calls.append(name)
    if len(calls) == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(target, name, die)

async def main():
    requests = [request_from_json(line) for line in Path(asked).read_text().splitlines()]
    client = openai_client(model="fake-1", base_url=url, api_key_env="UNIBIND_NONE")
    pace = batch_run.Pace(file_requests=5, quiet_s=0.05, poll_s=0.02, longest_poll_s=0.1, settle_s=0.05)
    settings = Asking(model="fake-1", submit="batch")
    async with open_ledger(Path(kb)) as ledger:
        opening = open_batch_asker(Path(kb), ledger, client, settings=settings, run_id="r", pace=pace)
        async with opening as asker:
            await asker.ask(requests)

asyncio.run(main())
"""


def test_killed_at_every_step(tmp_path: Path) -> None:
    """A process that dies by SIGKILL, five times at five steps, leaves nothing to be paid for twice."""
    steps = [("jobs", "plan", 1), ("api", "upload", 1), ("api", "create", 1), ("api", "retrieve", 2)]
    steps.append(("jobs", "settle", 2))

    async def play(world: World) -> None:
        asked = world.requests(15)
        path = tmp_path / "asked.jsonl"
        path.write_text("\n".join(map(request_json, asked)))
        for module, name, nth in steps:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _RUN_AND_DIE, world.url, world.kb, path, module, name, str(nth)
            )
            assert await process.wait() == -signal.SIGKILL
        async with world.asker() as (asker, _):
            assert all(entry and entry.answer and entry.attempts == 1 for entry in await asker.ask(asked))
        stats = await world.stats()
        assert (stats["batch_requests"], stats["distinct"]) == (15, 15)

    run(tmp_path, play)
    assert len(list(iter_entries(tmp_path / "kb"))) == 15


@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_that_is_refused_whole_is_the_endpoints_fault(tmp_path: Path, count: int) -> None:
    """Nothing is recorded, the run stops with the server's words, and the next run asks again."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            with pytest.raises(
                RunError, match=r"refused, the last with: .*safety system.*nothing is recorded"
            ):
                await asker.ask(world.requests(count))
        assert list(iter_entries(world.kb)) == []

    run(tmp_path, play, replace(FAKE, faults={"policy": 1.0}))

    async def again(world: World) -> None:
        async with world.asker() as (asker, _):
            entries = await asker.ask(world.requests(count))
        assert all(entry is not None and entry.answer for entry in entries)

    run(tmp_path, again)


def test_refusals_in_a_batch_that_is_answered_are_the_requests_own(tmp_path: Path) -> None:
    """As online: a few are refused among answers, and recorded with the reason."""

    async def play(world: World) -> None:
        async with world.asker() as (asker, _):
            entries = await asker.ask(world.requests(40))
        failed = [entry for entry in entries if entry is not None and entry.error]
        assert 0 < len(failed) < 40

    run(tmp_path, play, replace(FAKE, faults={"policy": 0.2}))


def test_a_field_that_a_batch_refuses_says_what_to_write(tmp_path: Path) -> None:
    """The results of a batch name the parameter, as an answer online does; nothing is recorded."""

    async def play(world: World) -> None:
        settings = DescribeCategories(
            describer="openai",
            model="fake-1",
            base_url=world.url,
            api_key_env="UNIBIND_NONE",
            submit="batch",
        )
        describer = make_describer(settings)
        assert isinstance(describer, ChatClient)
        async with (
            open_ledger(world.kb) as ledger,
            open_batch_asker(world.kb, ledger, describer, settings=settings, run_id="r", pace=QUICK) as asker,
        ):
            with pytest.raises(
                RunError, match=r'`parameters = \{ seed = "off" \}` under \[describe.categories\]'
            ):
                await asker.ask(world.requests(3))
        await describer.close()
        assert list(iter_entries(world.kb)) == []

    run(tmp_path, play, replace(FAKE, refuses=("seed",)))


def test_a_server_that_drips_is_not_waited_for(tmp_path: Path) -> None:
    """Every call of the Batch API has a deadline for the whole of it, and the outage an end."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async def go() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", drip)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        world = World(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", tmp_path / "kb", [])
        try:
            async with asyncio.timeout(30), world.asker(request_timeout_s=0.2, outage_s=0.5) as (asker, _):
                with pytest.raises(RunError, match=r"no whole answer within .* s"):
                    await asker.ask(world.requests(1))
        finally:
            await runner.cleanup()

    asyncio.run(go())
