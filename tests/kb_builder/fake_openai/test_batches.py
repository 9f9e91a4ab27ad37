"""The fake's files and batches, used through the real `openai` package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import openai
import pytest

from kb_builder.fake_openai import FakeSettings, serve_fake

FAST = FakeSettings(batch_s=0.01)


def talk_to(settings: FakeSettings, talk: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
    """What `talk` gives, with a client of a server that lives as long."""

    async def run() -> Any:
        async with (
            serve_fake(settings) as url,
            openai.AsyncOpenAI(base_url=url, api_key="sk-any", max_retries=0) as client,
        ):
            return await talk(client)

    return asyncio.run(run())


def line(number: int, **changes: Any) -> dict[str, Any]:
    """One request of a batch."""
    body = {"model": "m", "messages": [{"role": "user", "content": 'About "bell".'}], "seed": number}
    return {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    } | changes


async def submit(client: openai.AsyncOpenAI, lines: list[dict[str, Any]]) -> Any:
    """Upload the lines and create their batch."""
    data = "".join(json.dumps(each) + "\n" for each in lines).encode()
    file = await client.files.create(file=("requests.jsonl", data), purpose="batch")
    assert file.bytes == len(data)
    return await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"key": "k1"},
    )


async def finish(client: openai.AsyncOpenAI, batch: Any) -> Any:
    """Wait for the batch's end."""
    while batch.status in {"validating", "in_progress", "finalizing", "cancelling"}:
        await asyncio.sleep(0.005)
        batch = await client.batches.retrieve(batch.id)
    return batch


async def rows(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a result file by custom_id; {} where there is no file."""
    if file_id is None:
        return {}
    text = (await client.files.content(file_id)).text
    return {row["custom_id"]: row for row in map(json.loads, text.splitlines())}


def test_a_batch_runs_to_its_end() -> None:
    """It passes every status, keeps its metadata, and answers each item as online."""

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, list[str], dict[str, Any], Any]:
        batch = await submit(client, [line(number) for number in range(30)])
        seen = [batch.status]
        while batch.status != "completed":
            await asyncio.sleep(0.002)
            batch = await client.batches.retrieve(batch.id)
            if batch.status != seen[-1]:
                seen.append(batch.status)
        online = await client.chat.completions.with_raw_response.create(**line(7)["body"])
        return batch, seen, await rows(client, batch.output_file_id), json.loads(online.http_response.text)

    batch, seen, output, online = talk_to(FakeSettings(batch_s=1.5), talk)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]
    assert (batch.metadata, batch.error_file_id, batch.errors) == ({"key": "k1"}, None, None)
    assert batch.request_counts.model_dump() == {"total": 30, "completed": 30, "failed": 0}
    assert set(output) == {f"r{number}" for number in range(30)}
    assert list(output) != sorted(output, key=lambda name: int(name[1:]))  # no order is promised
    assert output["r7"]["response"]["body"] == online


def test_expired_items_leave_the_finished_ones() -> None:
    """The batch is expired, its output holds what was done, the error file the rest, to be asked again."""

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
        batch = await finish(client, await submit(client, [line(number) for number in range(40)]))
        good, bad = await rows(client, batch.output_file_id), await rows(client, batch.error_file_id)
        left = [line(int(name[1:])) for name in bad]
        return batch, good, bad, await finish(client, await submit(client, left))

    batch, good, bad, again = talk_to(FakeSettings(batch_s=0.01, batch_expired=0.3), talk)
    assert batch.status == "expired"
    assert len(good) + len(bad) == 40 and not set(good) & set(bad) and good and bad
    assert {row["error"]["code"] for row in bad.values()} == {"batch_expired"}
    assert 0 < again.request_counts.completed < again.request_counts.total


def test_failed_items_are_in_the_error_file() -> None:
    """With the status and the body that they would have online: 500s pass, refused requests stay refused."""
    settings = FakeSettings(batch_s=0.01, batch_failed=0.3, faults={"policy": 0.3})

    async def talk(client: openai.AsyncOpenAI) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        wrong = line(99)
        wrong["body"] = wrong["body"] | {"temperature": 9}
        batch = await finish(client, await submit(client, [wrong, *(line(number) for number in range(40))]))
        return batch, await rows(client, batch.output_file_id), await rows(client, batch.error_file_id)

    batch, good, bad = talk_to(settings, talk)
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(good), len(bad))
    assert {row["response"]["status_code"] for row in bad.values()} == {400, 500}
    assert {row["response"]["body"]["error"]["code"] for row in bad.values()} >= {"content_policy_violation"}


@pytest.mark.parametrize(
    ("lines", "code", "where"),
    [
        ([], "empty_batch", None),
        ([line(1), line(1)], "duplicate_custom_id", 2),
        ([line(1, custom_id="")], "missing_required_parameter", 1),
        ([line(1, url="/v1/embeddings")], "mismatched_url", 1),
        ([line(1), line(2, body={"model": "other"})], "mismatched_model", 2),
        ([line(1, body=None)], "invalid_json_line", 1),
        ([line(number) for number in range(6)], "too_many_tasks", None),
    ],
)
def test_a_wrong_file_fails_the_whole_batch(
    lines: list[dict[str, Any]], code: str, where: int | None
) -> None:
    """Nothing is answered; the errors name the code and the line."""

    async def talk(client: openai.AsyncOpenAI) -> Any:
        return await finish(client, await submit(client, lines))

    batch = talk_to(FakeSettings(batch_s=0.01, batch_max_requests=5), talk)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, where)


def test_the_first_batches_can_be_rejected() -> None:
    """As when too many tokens are waiting: the same file passes later."""

    async def talk(client: openai.AsyncOpenAI) -> list[Any]:
        return [await finish(client, await submit(client, [line(1)])) for _ in range(2)]

    first, second = talk_to(FakeSettings(batch_s=0.01, batch_rejects=1), talk)
    assert (first.status, first.errors.data[0].code) == ("failed", "token_limit_exceeded")
    assert second.status == "completed"


def test_a_batch_can_be_cancelled() -> None:
    """It ends as cancelled, and cannot be cancelled again."""

    async def talk(client: openai.AsyncOpenAI) -> Any:
        batch = await submit(client, [line(1)])
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        ended = await finish(client, batch)
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)
        return ended

    assert talk_to(FakeSettings(batch_s=60.0), talk).status == "cancelled"


def test_batches_and_files_come_in_pages() -> None:
    """Newest first, `limit` of them after a given one; the client walks through them all."""

    async def talk(client: openai.AsyncOpenAI) -> None:
        made = [(await submit(client, [line(number)])).id for number in range(5)]
        page = await client.batches.list(limit=2)
        assert ([batch.id for batch in page.data], page.has_more) == ([made[4], made[3]], True)
        walked = [batch.id async for batch in client.batches.list(limit=2)]
        assert walked == made[::-1]
        assert len([file async for file in client.files.list(limit=2, purpose="batch")]) == 5
        with pytest.raises(openai.BadRequestError):
            await client.batches.list(after="batch_none")

    talk_to(FakeSettings(batch_s=60.0), talk)


def test_files_come_and_go() -> None:
    """Content and description are what was sent; a deleted file is gone, and an unknown batch is 404."""

    async def talk(client: openai.AsyncOpenAI) -> None:
        file = await client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert (await client.files.content(file.id)).content == b"{}\n"
        assert (await client.files.retrieve(file.id)).filename == "a.jsonl"
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.files.content(file.id)
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_none")
        with pytest.raises(openai.BadRequestError, match="No batch file"):
            await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )

    talk_to(FAST, talk)


def test_a_file_has_a_limit() -> None:
    """One byte more than a batch may have is refused at the upload."""

    async def talk(client: openai.AsyncOpenAI) -> None:
        await client.files.create(file=("a.jsonl", b"x" * 100), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="101 bytes"):
            await client.files.create(file=("a.jsonl", b"x" * 101), purpose="batch")

    talk_to(FakeSettings(batch_max_bytes=100), talk)


def test_batch_items_are_counted_like_requests() -> None:
    """An item that was asked online before is asked again."""

    async def talk(client: openai.AsyncOpenAI) -> dict[str, Any]:
        await client.chat.completions.create(**line(1)["body"])
        await finish(client, await submit(client, [line(1), line(2)]))
        async with (
            aiohttp.ClientSession() as session,
            session.get(str(client.base_url.join("/_fake/stats"))) as answer,
        ):
            return dict(await answer.json())

    seen = talk_to(FAST, talk)
    assert (seen["batches"], seen["batch_requests"], seen["distinct"]) == (1, 2, 2)
    assert list(seen["answered_again"].values()) == [2]
