"""browse.overview: what a knowledge base holds, one category of it, and the state of its vectors."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError, KnowledgeBaseError
from data.files import write_json
from kb_builder.ask.ledger import Entry, open_ledger
from kb_builder.ask.write_offs import write_off
from kb_builder.browse.overview import show, stats
from kb_builder.browse.query import sql
from kb_builder.tables.schemas import DESCRIPTIONS, REJECTS, SAMPLES, read_rows, write_table

ENCODER = "minilm-0123456789ab-float16"


def test_stats_count_everything(browsed_kb: Path) -> None:
    """Rows per category and model, rejects, centers and controls, as numbers and as text."""
    page = dict(stats(browsed_kb).sections)
    assert page["category descriptions per category and model"].rows == (
        ("cat", "local", "SmolLM2", 1, 1),
        ("dog", "local", "SmolLM2", 6, 0),
    )
    assert page["rejected descriptions by reason"].rows == (("category", "refusal", 1),)
    assert page["rejected samples"].rows == (("ingest", 1, "t.png: no such file"),)
    assert page["embedding centers"].rows == (("visual", "train", "minilm", 1, 1),)
    assert page["controls"].rows == (("class_name", 2, 2), ("random_words", 2, 4), ("templates", 2, 4))
    assert page["requests in the ledger"].rows == ()
    assert "SmolLM2" in str(stats(browsed_kb))


def test_stats_with_their_sql(browsed_kb: Path) -> None:
    """Each section's SQL is printed above it, and gives the same rows when it is run again."""
    page = stats(browsed_kb)
    text = page.to_text(with_sql=True)
    for title, answer in page.sections:
        if title != "requests in the ledger":
            assert f"{title}\n{answer.query};\n\n{answer}" in text
            assert sql(browsed_kb, answer.query) == answer


def vectors(kb: Path) -> dict[tuple[str, str, str | None], tuple[Any, ...]]:
    """The section on vectors: by role, folder and table what is current, stale and missing."""
    rows = dict(stats(kb).sections)["vectors"].rows
    return {(row[0], row[1], row[2]): row[-3:] for row in rows}


def test_stats_count_current_stale_and_missing_vectors(browsed_kb: Path) -> None:
    """A changed text makes a vector stale, as does one that is gone; a new text lacks one."""
    key = ("text", ENCODER, "category_texts")
    controls = {("text", ENCODER, "controls"): (0, 0, 10)}
    assert vectors(browsed_kb) == {key: (7, 0, 0), **controls}
    part = browsed_kb / "descriptions" / "category" / "part-00000.parquet"
    rows = read_rows(part)
    rows[0]["text"] = "A dog is something else."
    write_table(part, rows, DESCRIPTIONS)
    assert vectors(browsed_kb) == {key: (6, 1, 0), **controls}
    rows[1]["status"] = "dup_near"
    rows.append({**rows[2], "row_id": "new", "text": "A dog is new."})
    write_table(part, rows, DESCRIPTIONS)
    assert vectors(browsed_kb) == {key: (5, 2, 1), **controls}
    shutil.rmtree(browsed_kb / "embeddings" / ENCODER / "category_texts")
    assert vectors(browsed_kb) == {key: (0, 0, 7), **controls}


def test_stats_count_the_state_of_samples(browsed_kb: Path) -> None:
    """A sample lacks a vector per encoder that should have one, unless its file could not be read."""
    pixels = browsed_kb / "embeddings" / "pixels"
    card = {"name": "pixels", "identity": "1", "dim": 3, "dtype": "float32", "modalities": ["image"]}
    write_json(pixels / "encoder.json", card)
    roles = {"text": ENCODER, "samples": pixels.name, "zero_shot": pixels.name}
    write_json(pixels.parent / "encoders.json", roles)
    (sample,) = read_rows(browsed_kb / "samples.parquet")
    others = [{**sample, "sample_id": name, "modality": name} for name in ("audio", "text")]
    write_table(browsed_kb / "samples.parquet", [sample, *others], SAMPLES)
    found = {key: state for key, state in vectors(browsed_kb).items() if key[2] == "samples"}
    assert found == {
        ("samples", "pixels", "samples"): (0, 0, 2),
        ("zero_shot", "pixels", "samples"): (0, 0, 1),
        ("text", ENCODER, "samples"): (0, 0, 1),
    }
    unread = {"sample_id": "s", "stage": "encode", "reason": "a.png: torn"}
    write_table(browsed_kb / "rejects" / "encode.parquet", [unread], REJECTS)
    assert vectors(browsed_kb)["samples", "pixels", "samples"] == (0, 0, 1)
    assert ("zero_shot", "pixels", "samples") not in vectors(browsed_kb)


@pytest.mark.parametrize("card", ["whole", "torn", "none"])
def test_stats_list_folders_without_a_role(browsed_kb: Path, card: str) -> None:
    """The folder of an encoder that was replaced is listed, even if its card is damaged."""
    old = browsed_kb / "embeddings" / "older-fedcba987654-float16"
    old.mkdir()
    if card != "none":
        text = json.dumps({"name": "older", "identity": "f", "dim": 9, "dtype": "float16", "modalities": []})
        (old / "encoder.json").write_text(text if card == "whole" else text[:9], encoding="utf-8")
    assert vectors(browsed_kb)["not used by any role", old.name, None] == (None, None, None)
    assert vectors(browsed_kb)["text", ENCODER, "category_texts"] == (7, 0, 0)


def record(kb: Path, entries: list[Entry]) -> None:
    """Put entries into the ledger."""

    async def run() -> None:
        async with open_ledger(kb) as ledger:
            await asyncio.gather(*map(ledger.submit, entries))

    asyncio.run(run())


LOCAL = Entry(
    key="0",
    request="{}",
    answer="{}",
    error=None,
    attempts=1,
    latency_ms=1.0,
    created_at=0,
    provider="local",
    source="local",
    run_id="test",
    cost_usd=None,
    base_key="0",
)


def test_stats_count_the_ledger(browsed_kb: Path) -> None:
    """Requests per provider and way, answered and failed, with known dollars and answers without a price."""
    kb = browsed_kb
    paid = replace(LOCAL, provider="openai", source="online")
    record(
        kb,
        [
            LOCAL,
            replace(LOCAL, key="1", answer=None, error="400", attempts=3),
            replace(paid, key="2", cost_usd=0.25),
            replace(paid, key="3", cost_usd=0.5, attempts=2),
            replace(paid, key="4"),
            replace(paid, key="5", source="batch", cost_usd=0.125),
        ],
    )
    before = sorted(kb.iterdir())
    answer = dict(stats(kb).sections)["requests in the ledger"]
    assert answer.columns[-2:] == ("known_cost_usd", "answers_of_unknown_cost")
    assert answer.rows == (
        ("local", "local", 1, 1, 4, None, 1),
        ("openai", "batch", 1, 0, 1, 0.125, 0),
        ("openai", "online", 3, 0, 4, 0.75, 1),
    )
    assert "0.75" in str(answer)
    assert sorted(kb.iterdir()) == before
    with closing(sqlite3.connect(kb / "ledger.sqlite")) as ledger:
        assert tuple(ledger.execute(answer.query).fetchall()) == answer.rows

    async def break_off() -> None:
        async with open_ledger(kb) as ledger:
            await ledger.write(partial(write_off, usd=0.5))

    asyncio.run(break_off())
    assert dict(stats(kb).sections)["requests in the ledger"].rows == (
        *answer.rows,
        ("(broke off)", "", None, None, None, 0.5, None),
    )


def test_stats_of_a_ledger_that_cannot_be_read(browsed_kb: Path) -> None:
    """A damaged one must be restored; one of another format needs that version of the program."""
    path = browsed_kb / "ledger.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(KnowledgeBaseError, match=r"ledger\.sqlite.*restore it from a backup"):
        stats(browsed_kb)
    path.unlink()
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute("PRAGMA user_version = 1")
    with pytest.raises(KnowledgeBaseError, match="another version of this program"):
        stats(browsed_kb)


@pytest.mark.parametrize("name", ["dog", "DOG", " Dog ", "doggy"])
def test_show_finds_a_category_by_id_name_or_alias(browsed_kb: Path, name: str) -> None:
    """Any spelling of a category gives its texts, rejects and centers."""
    page = dict(show(browsed_kb, name).sections)
    assert page["category"].rows[0][0] == "dog"
    assert len(page["descriptions"].rows) == 6
    assert page["embedding centers"].rows == ((0, 0.5, "visual", "train", "A dog is number 0."),)


def test_show_suggests(browsed_kb: Path) -> None:
    """An unknown category gives the nearest one; texts cannot send control characters to the terminal."""
    with pytest.raises(InputError, match="no category 'dug'; did you mean 'DOG'"):
        show(browsed_kb, "dug")
    with pytest.raises(InputError, match="there are 2"):
        show(browsed_kb, "zzzz")
    text = show(browsed_kb, "cat").to_text(with_sql=True)
    assert "\x1b" not in text
    assert "I cannot say \\x1b[31m that." in text
