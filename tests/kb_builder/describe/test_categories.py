"""Category descriptions from plan to Parquet: complete, resumable, never paid for twice."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError, RunError
from data.lock import write_lock
from kb_builder.ask.ledger import Entry, iter_entries
from kb_builder.ask.request import Request, request_json, request_key
from kb_builder.describe.categories import (
    categories_per_shard,
    category_shard_count,
    describe_category_shards,
)
from kb_builder.describe.prompts import texts_per_request
from kb_builder.describe.rows import row_id
from kb_builder.describers.fake import fake_answer
from kb_builder.encoders.tokens import MINILM
from kb_builder.fake_openai.texts import sentence
from kb_builder.parse.answers import PARSER_VERSION
from kb_builder.settings import DescribeCategories, Price
from kb_builder.tables.parts import read_manifest
from kb_builder.tables.schemas import DESCRIPTIONS, read_rows
from tests.planted import write_categories

NAMES = ["dog", "church bells", "wooden sphere", "Shetland sheepdog, Shetland"]
FAKE = DescribeCategories(describer="fake", n=12, near_cosine=None)
# What may differ between an undisturbed run and one that was killed and resumed.
WHEN = {"created_at", "latency_ms", "attempts", "run_id"}


def knowledge_base(folder: Path, names: list[str]) -> Path:
    write_categories(folder, {name.split(",")[0].lower().replace(" ", "-"): name for name in names})
    return folder


def table(kb: Path) -> list[dict[str, Any]]:
    """The rows, less what may differ between two runs."""
    return [
        {name: value for name, value in row.items() if name not in WHEN}
        for row in read_rows(kb / "descriptions" / "category")
    ]


def online(url: str, **changes: Any) -> DescribeCategories:
    settings = DescribeCategories(
        describer="openai",
        model="m",
        base_url=url,
        n=12,
        items=1,
        near_cosine=None,
        request_timeout_s=30.0,
    )
    return replace(settings, **changes)


class Answers:
    """An asker that answers as the fake does, in the order that it is given to."""

    window = 16

    def __init__(self, order: random.Random | None = None) -> None:
        self.order = order

    async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
        for _ in range(self.order.randrange(50) if self.order else 0):
            await asyncio.sleep(0)
        return [answered(request) for request in requests]


def answered(request: Request) -> Entry:
    key = request_key(request)
    return Entry(
        key=key,
        request=request_json(request),
        answer=json.dumps(fake_answer(request.messages, key, model=request.model)),
        error=None,
        attempts=1,
        latency_ms=0.0,
        created_at=0,
        provider="fake",
        source="fake",
        run_id="r",
        cost_usd=None,
        base_key="",
    )


def test_every_category_gets_its_texts(tmp_path: Path) -> None:
    """At least n accepted texts that name their category and differ, in the schema's columns."""
    kb = knowledge_base(tmp_path, NAMES)
    summary = describe_category_shards(kb, [0], FAKE, run_id="r1", encoder=MINILM)[0]
    part = kb / "descriptions" / "category" / "part-00000.parquet"
    assert pq.read_schema(part).equals(DESCRIPTIONS, check_metadata=True)
    rows = read_rows(part)
    ok = [row for row in rows if row["status"] == "ok"]
    assert {row["category_id"] for row in ok} == {"dog", "church-bells", "wooden-sphere", "shetland-sheepdog"}
    assert min(Counter(row["category_id"] for row in ok).values()) >= 12
    assert len({row["text_norm_hash"] for row in ok}) == len(ok)
    assert len({row["row_id"] for row in rows}) == len(rows)
    assert [row["category_id"] for row in rows] == sorted(row["category_id"] for row in rows)
    shown_by = {row["aspect"]: row["modality"] for row in rows}
    assert shown_by == {
        "look": "image",
        "shape": "point",
        "material": "image",
        "sound": "audio",
        "heat": "thermal",
        "motion": "video",
        "use": "text",
    }
    assert summary == {
        "categories": 4,
        "requests": len(rows),
        "answered_from_ledger": 0,
        "ok": len(ok),
        "rejected": dict(Counter(row["status"] for row in rows if row["status"] != "ok")),
        "saturated": {},
        "spent_usd": summary["spent_usd"],
        "saved_usd": 0.0,
    }


def test_rows_tell_where_they_come_from(tmp_path: Path) -> None:
    """Each row points at its ledger entry, whose request is what the row says was asked."""
    kb = knowledge_base(tmp_path, ["dog"])
    describe_category_shards(kb, [0], FAKE, run_id="r1", encoder=MINILM)
    entries = {entry.key: entry for entry in list(iter_entries(kb))}
    rows = read_rows(kb / "descriptions" / "category")
    assert {row["request_key"] for row in rows} == entries.keys()
    for row in rows:
        entry = entries[row["request_key"]]
        assert (row["run_id"], row["source"], row["attempts"]) == ("r1", "fake", 1)
        assert row["created_at"] == entry.time
        assert f'"seed":{row["seed"]}' in entry.request
        assert row["text"][:20] in entry.request + (entry.answer or "")


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    """The table is made again from the ledger alone: same bytes, no request."""
    kb = knowledge_base(tmp_path, NAMES)
    first = describe_category_shards(kb, [0], FAKE, run_id="r1", encoder=MINILM)[0]
    part = kb / "descriptions" / "category" / "part-00000.parquet"
    content = part.read_bytes()
    second = describe_category_shards(kb, [0], FAKE, run_id="r2", encoder=MINILM)[0]
    money = {"spent_usd": 0.0, "saved_usd": first["spent_usd"]}
    assert second == first | {"answered_from_ledger": first["requests"]} | money
    assert part.read_bytes() == content


def test_rejected_texts_are_topped_up_and_kept(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Refusals, nameless texts, repeats and 400s are made up for by more requests, and stay as rows."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any] | None:
        said = {
            0: "I'm sorry, I cannot help.",
            1: "It has four quick legs.",
            2: "The dog has four quick legs.",
        }
        kind = body["seed"] % 8
        if kind == 3:
            return {"status": 400, "body": {"error": {"message": "content policy"}}}
        if kind not in said:
            return None
        return {
            "body": {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": said[kind]}}]}
        }

    kb = knowledge_base(tmp_path, ["dog"])
    summary = describe_category_shards(
        kb, [0], online(chat_server(script).url, n=40), run_id="r", encoder=MINILM
    )[0]
    assert summary["ok"] >= 40 and summary["saturated"] == {}
    rows = read_rows(kb / "descriptions" / "category")
    found = {
        (row["status"], row["finish_reason"], row["text"], row["reason"])
        for row in rows
        if row["status"] not in {"ok", "dup_near"}
    }
    [failed] = [reason for status, _, _, reason in found if status == "failed"]
    assert failed.endswith("status 400: content policy")
    assert found == {
        ("refusal", "stop", "I'm sorry, I cannot help.", 'says "I\'m sorry"'),
        ("no_name", "stop", "It has four quick legs.", "names none of: dog"),
        ("dup_exact", "stop", "The dog has four quick legs.", "the same words"),
        ("failed", "error", "", failed),
    }
    [first] = [row for row in rows if row["status"] == "ok" and row["text"] == "The dog has four quick legs."]
    assert {row["dup_of"] for row in rows if row["status"] == "dup_exact"} == {first["row_id"]}


def test_a_category_that_runs_dry_is_reported(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """A model that always says the same stops at the request limit, with what there is."""
    body = {"choices": [{"finish_reason": "stop", "message": {"content": "The dog has four quick legs."}}]}
    kb = knowledge_base(tmp_path, ["dog"])
    server = chat_server(lambda _body, _nth: {"body": body})
    settings = online(server.url, n=5, max_requests_per_text=2.5)
    summary = describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)[0]
    assert summary["saturated"] == {"dog": 1}
    assert summary["requests"] == server.seen.total() == math.ceil(5 * 2.5)


def test_a_saturated_category_stops_early(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """Fewer than `saturated_below` new texts among the last 100 asked for: no more money for this one."""

    def script(body: dict[str, Any], nth: int) -> dict[str, Any] | None:
        if "dog" not in str(body["messages"]):
            return None
        told = {"message": {"content": sentence(random.Random(body["seed"] % 7), "dog")}}
        return {"body": {"choices": [{"finish_reason": "stop", **told}]}}

    kb = knowledge_base(tmp_path, ["dog", "church bells"])
    server = chat_server(script)
    summary = describe_category_shards(kb, [0], online(server.url, n=60), run_id="r", encoder=MINILM)[0]
    asked = Counter(row["category_id"] for row in read_rows(kb / "descriptions" / "category"))
    assert summary["saturated"] == {"dog": 7}
    assert asked["dog"] == 60 + 100


def several(body: dict[str, Any], nth: int) -> dict[str, Any]:
    """Ten texts a request, as the schema wants them; some answers are torn, some are lists, some repeat."""
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["descriptions"]
    assert schema["minItems"] == schema["maxItems"]
    name = re.search(r'"([^"]+)"', body["messages"][-1]["content"])
    assert name is not None
    draw = random.Random(body["seed"])
    texts = [sentence(draw, name.group(1)) for _ in range(schema["minItems"])]
    content = json.dumps({"descriptions": texts})
    finish = "stop"
    match body["seed"] % 5:
        case 0:
            content, finish = content[: len(content) * 2 // 3], "length"
        case 1:
            content = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))
        case 2:
            content = json.dumps({"descriptions": [texts[0]] * len(texts)})
    choice = {"finish_reason": finish, "message": {"content": content}}
    usage = {"prompt_tokens": 100, "completion_tokens": 200}
    return {"body": {"model": "m", "choices": [choice], "usage": usage}}


def test_several_texts_per_request(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """One row for each text of an answer; a torn list keeps its whole texts and says what was lost."""
    price = Price(input=1.0, output=2.0, date="2026-01-01")
    kb = knowledge_base(tmp_path, NAMES)
    server = chat_server(several)
    summary = describe_category_shards(
        kb, [0], online(server.url, n=60, items=10, price=price, budget_usd=5.0), run_id="r", encoder=MINILM
    )[0]
    rows = read_rows(kb / "descriptions" / "category")
    assert summary["saturated"] == {} and summary["requests"] == server.seen.total() < len(rows) / 4
    assert len({row["row_id"] for row in rows}) == len(rows)
    by_request: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_request.setdefault(row["request_key"], []).append(row)
    for key, mine in by_request.items():
        ids = [row_id(key, choice=0, item=n, parser_version=PARSER_VERSION) for n in range(len(mine))]
        assert [row["row_id"] for row in mine] == ids
    lost = [row for row in rows if row["status"] == "unparsed"]
    assert lost and all("was cut off by max_tokens after" in row["reason"] for row in lost)
    assert {row["max_tokens"] for row in rows} == {10 * 40 + 32}
    cost = 100 / 1e6 * 1.0 + 200 / 1e6 * 2.0
    assert sum(row["cost_usd"] for row in rows) == pytest.approx(cost * summary["requests"])
    assert summary["spent_usd"] == pytest.approx(cost * summary["requests"])
    assert [entry.cost_usd for entry in list(iter_entries(kb))] == pytest.approx([cost] * summary["requests"])


def test_parts_are_written_as_their_shards_are_done(tmp_path: Path) -> None:
    """One pipeline over all shards: a slow category holds up its own shard alone."""
    kb = knowledge_base(tmp_path, ["ant", "bee", "cat", "dog"])
    settings = replace(FAKE, n=5, shard_categories=1)
    done: list[int] = []

    class SlowAnt(Answers):
        async def ask(self, requests: Sequence[Request]) -> list[Entry | None]:
            if "the ant" in str(requests[0].messages):
                while len(done) < 3:
                    await asyncio.sleep(0)
            return await super().ask(requests)

    def on_shard(shard: int, summary: dict[str, Any]) -> None:
        assert (kb / f"descriptions/category/part-{shard:05d}.parquet").is_file()
        assert summary["ok"] >= 5
        done.append(shard)

    describe_category_shards(
        kb, range(4), settings, run_id="r", on_shard=on_shard, asker=SlowAnt(), encoder=MINILM
    )
    assert done[-1] == 0 and sorted(done) == [0, 1, 2, 3]
    manifest = read_manifest(kb)
    assert sorted(manifest.parts) == [f"category/part-{shard:05d}.parquet" for shard in range(4)]


def test_the_order_of_answers_changes_no_row(tmp_path: Path) -> None:
    """Whichever answers come first, the parts are the same to the byte."""
    names = [f"thing{number}q" for number in range(12)]
    settings = replace(FAKE, n=20, shard_categories=5)
    parts = []
    for run in range(3):
        kb = knowledge_base(tmp_path / str(run), names)
        asker = Answers(random.Random(run))
        describe_category_shards(kb, range(3), settings, run_id="r", encoder=MINILM, asker=asker)
        parts.append([path.read_bytes() for path in sorted(kb.glob("descriptions/category/*.parquet"))])
    assert parts[0] == parts[1] == parts[2] and len(parts[0]) == 3


def test_a_replay_asks_nobody(tmp_path: Path) -> None:
    """Parsed and judged again from the ledger: the same table; where answers are missing, what there is."""
    kb = knowledge_base(tmp_path, NAMES)
    describe_category_shards(kb, [0], FAKE, run_id="r1", encoder=MINILM)
    rows = table(kb)
    entries = list(iter_entries(kb))
    (kb / "descriptions/category/part-00000.parquet").unlink()
    describe_category_shards(kb, [0], FAKE, run_id="r", encoder=MINILM, replay=True)
    assert table(kb) == rows and list(iter_entries(kb)) == entries
    summaries: list[dict[str, Any]] = []
    describe_category_shards(
        kb,
        [0],
        replace(FAKE, n=20),
        on_shard=lambda _, summary: summaries.append(summary),
        run_id="r",
        replay=True,
        encoder=MINILM,
    )
    assert list(iter_entries(kb)) == entries
    assert table(kb) == rows
    assert set(summaries[0]["saturated"]) == {row["category_id"] for row in rows}


def test_shards_hold_about_a_thousand_requests() -> None:
    """At least one category, at most 500, unless the settings say how many."""
    fake = DescribeCategories(describer="fake")
    assert categories_per_shard(fake) == 20
    assert categories_per_shard(replace(fake, n=5000)) == 1
    assert categories_per_shard(replace(fake, n=1)) == 500
    assert categories_per_shard(replace(fake, n=1000, items=20)) == 20
    assert categories_per_shard(replace(fake, shard_categories=7)) == 7


def test_few_texts_still_ask_about_every_aspect() -> None:
    """Ten texts a request where nothing is said, and fewer where that would leave aspects out."""
    settings = DescribeCategories(describer="openai", model="m")
    for n, items in ((1000, 10), (80, 10), (50, 7), (8, 1), (1, 1)):
        assert texts_per_request(replace(settings, n=n)) == items
    assert texts_per_request(replace(settings, items=20)) == 20
    assert texts_per_request(DescribeCategories(describer="local", n=1000)) == 1


def test_shards_divide_the_categories(tmp_path: Path) -> None:
    """Every category is in one part, whatever the division; parts of a finer, older division go."""
    kb = knowledge_base(tmp_path, NAMES)
    whole, fine = FAKE, replace(FAKE, shard_categories=1)
    assert (category_shard_count(kb, whole), category_shard_count(kb, fine)) == (1, 4)
    for shard in range(4):
        summary = describe_category_shards(kb, [shard], fine, run_id="r", encoder=MINILM)[shard]
        assert summary["categories"] == 1
    rows = table(kb)
    summary = describe_category_shards(kb, [0], whole, run_id="r", encoder=MINILM)[0]
    assert summary["answered_from_ledger"] == len(rows)
    assert table(kb) == rows


def test_the_categories_must_be_there(tmp_path: Path) -> None:
    """A folder without categories is named, with what to do."""
    with pytest.raises(KnowledgeBaseError, match=r"categories\.parquet is missing"):
        category_shard_count(tmp_path, FAKE)


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    """Two runs on one knowledge base: the second stops at once and says who is writing."""
    kb = knowledge_base(tmp_path, ["dog"])
    with (
        write_lock(kb / "ledger.lock"),
        pytest.raises(KnowledgeBaseError, match=f"is being written by process {os.getpid()}"),
    ):
        describe_category_shards(kb, [0], FAKE, run_id="r", encoder=MINILM)


def test_a_wrong_key_stops_and_is_written_nowhere(
    tmp_path: Path, chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops after a few calls; then, with the right key, it completes; no file holds either key."""
    kb = knowledge_base(tmp_path, ["dog"])
    server = chat_server()
    right = os.environ["OPENAI_API_KEY"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-one-of-the-user")
    with pytest.raises(RunError, match="Incorrect API key") as caught:
        describe_category_shards(kb, [0], online(server.url, concurrency=4), run_id="r", encoder=MINILM)
    assert "sk-wrong" not in str(caught.value)
    assert server.seen.total() <= 8
    monkeypatch.setenv("OPENAI_API_KEY", right)
    assert describe_category_shards(kb, [0], online(server.url), run_id="r", encoder=MINILM)[0]["ok"] >= 12
    for file in kb.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert right.encode() not in content and b"sk-wrong" not in content, file


def storm(body: dict[str, Any], nth: int) -> dict[str, Any] | None:
    """Every third request meets a fault at its first call."""
    faults: list[dict[str, Any]] = [
        {"status": 429, "headers": {"retry-after": "0.05"}},
        {"status": 500},
        {"body": '{"choices": [{"message": {"cont'},
        {"body": {"choices": []}},
        {"body": {"error": {"message": "overloaded"}}},
    ]
    return faults[body["seed"] % len(faults)] if nth == 1 and body["seed"] % 3 == 0 else None


def test_a_storm_changes_nothing(tmp_path: Path, chat_server: Callable[..., Any]) -> None:
    """With faults at a third of the requests the table is the one of a calm day."""
    calm_server, storm_server = chat_server(), chat_server(storm)
    calm, stormy = knowledge_base(tmp_path / "a", NAMES), knowledge_base(tmp_path / "b", NAMES)
    describe_category_shards(calm, [0], online(calm_server.url), run_id="r", encoder=MINILM)
    describe_category_shards(stormy, [0], online(storm_server.url), run_id="r", encoder=MINILM)
    assert [row["text"] for row in table(stormy)] == [row["text"] for row in table(calm)]
    assert max(storm_server.answered.values()) == 1
    assert {row["attempts"] for row in read_rows(stormy / "descriptions" / "category")} == {1, 2}


DESCRIBE = """
import sys
from pathlib import Path
from kb_builder.describe.categories import describe_category_shards
from kb_builder.settings import DescribeCategories
settings = DescribeCategories(
    describer="openai", model="m", base_url=sys.argv[2], n=12, items=1, concurrency=4,
    near_cosine=None, request_timeout_s=30.0,
)
describe_category_shards(Path(sys.argv[1]), [0], settings, run_id="killed", encoder="minilm")
"""


@pytest.mark.parametrize("progress", [0.15, 0.6])
def test_kill_9_and_resume(tmp_path: Path, chat_server: Callable[..., Any], progress: float) -> None:
    """Killed in the middle of a storm, resumed: the same table, and nothing committed is asked again."""
    kb = knowledge_base(tmp_path / "killed", NAMES)
    planned = 12 * len(NAMES)
    killed = threading.Event()

    def waits_for_the_kill(body: dict[str, Any], nth: int) -> dict[str, Any] | None:
        """From so many answers on, no further one until the process is killed."""
        if server.answered.total() >= progress * planned:
            killed.wait(300)
        return storm(body, nth)

    server = chat_server(waits_for_the_kill)
    command = [sys.executable, "-c", DESCRIBE, str(kb), server.url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while len(list(iter_entries(kb))) < progress * planned and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed.set()
    assert not list(kb.rglob("*.parquet"))[1:], "no table before the end"
    committed = [json.loads(entry.request)["seed"] for entry in list(iter_entries(kb))]
    assert 0 < len(committed) < planned

    settings = online(server.url, concurrency=4)
    summary = describe_category_shards(kb, [0], settings, run_id="resumed", encoder=MINILM)[0]
    assert summary["answered_from_ledger"] == len(committed)
    assert {server.answered[seed] for seed in committed} == {1}
    assert max(server.answered.values()) <= 2  # what was answered and not yet committed when the kill came

    undisturbed = knowledge_base(tmp_path / "undisturbed", NAMES)
    describe_category_shards(undisturbed, [0], settings, run_id="calm", encoder=MINILM)
    assert table(kb) == table(undisturbed)
    runs = Counter(row["run_id"] for row in read_rows(kb / "descriptions" / "category"))
    assert runs["killed"] == len(committed)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_cleanly(tmp_path: Path) -> None:
    """One clear error, no table, an intact ledger; with room again the run asks only the rest."""
    kb = knowledge_base(tmp_path / "full", NAMES)
    settings = replace(FAKE, n=60)
    with file_size_limit(150_000), pytest.raises(KnowledgeBaseError, match="free disk space"):
        describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)
    assert not (kb / "descriptions").exists()
    connection = sqlite3.connect(kb / "ledger.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    kept = len(list(iter_entries(kb)))
    summary = describe_category_shards(kb, [0], settings, run_id="r", encoder=MINILM)[0]
    assert summary["answered_from_ledger"] == kept
    roomy = knowledge_base(tmp_path / "roomy", NAMES)
    describe_category_shards(roomy, [0], settings, run_id="r", encoder=MINILM)
    assert table(kb) == table(roomy)
