"""kb_builder.browse: DuckDB over a knowledge base, and docs/duckdb.md on the bare files."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_text, write_json
from kb_builder.browse import VIEWS, connect, show, sql, stats
from kb_builder.budget import write_off
from kb_builder.controls import write_controls
from kb_builder.ledger import Entry, open_ledger
from kb_builder.rows import description_row
from kb_builder.schemas import CATEGORIES, CENTERS, DESCRIPTIONS, REJECTS, SAMPLES, write_table
from kb_builder.store import write_vectors

DOCS = Path(__file__).parents[2] / "docs" / "duckdb.md"


def text_row(category_id: str, text: str, status: str = "ok") -> dict[str, Any]:
    return description_row(
        kind="category",
        category_id=category_id,
        text=text,
        n_tokens=5,
        status=status,
        template_id="t",
        template_version="1",
        prompt_hash="p",
        request_key=hash_text(text),
        provider="local",
        model_requested="SmolLM2",
        model_resolved="SmolLM2",
        finish_reason="stop",
        attempts=1,
        latency_ms=1.0,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        source="local",
        run_id="test",
    )


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    """A knowledge base of two categories in a folder whose name is hostile to globs and quotes."""
    kb = tmp_path / "it's a [k]*b"
    categories = [
        {"category_id": name, "name": name.upper(), "aliases": [f"{name}gy"], "parent": None, "notes": None}
        for name in ("cat", "dog")
    ]
    write_table(kb / "categories.parquet", categories, CATEGORIES)
    sample = {
        "sample_id": "s",
        "object_id": None,
        "modality": "image",
        "uri": "a.png",
        "category_id": "dog",
        "split": "test",
        "sha256": "0",
        "bytes": 1,
    }
    write_table(kb / "samples.parquet", [sample], SAMPLES)
    reject = {"sample_id": "t", "stage": "ingest", "reason": "t.png: no such file"}
    write_table(kb / "rejects" / "ingest.parquet", [reject], REJECTS)
    texts = [text_row("dog", f"A dog is number {n}.") for n in range(6)]
    texts += [text_row("cat", "A cat is small.")]
    refused = [text_row("cat", "I cannot say \x1b[31m that.", "refusal")]
    folder = kb / "descriptions" / "category"
    write_table(folder / "part-00000.parquet", texts[:4], DESCRIPTIONS)
    write_table(folder / "part-00001.parquet", texts[4:] + refused, DESCRIPTIONS)
    # Vectors on a quarter of the unit circle: text n lies at n × 10 degrees.
    angle = np.deg2rad(10.0 * np.arange(len(texts)))
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    write_vectors(
        kb / "embeddings" / "minilm-0123456789ab" / "category_texts" / "part-00000.parquet",
        ids=[row["row_id"] for row in texts],
        groups=[row["category_id"] for row in texts],
        vectors_ND=vectors,
    )
    write_json(
        kb / "embeddings" / "encoders.json",
        {"text": "minilm-0123456789ab", "samples": None, "zero_shot": None},
    )
    center = {
        "category_id": "dog",
        "rank": 0,
        "row_id": texts[0]["row_id"],
        "score": 0.5,
        "rule": "visual",
        "guided_by": "train",
        "encoder": "minilm",
    }
    write_table(kb / "centers.parquet", [center], CENTERS)
    write_controls(kb, count=2, seed=0)
    return kb


def test_stats_count_everything(kb: Path) -> None:
    """Rows per category and model, rejects, vectors, centers and controls, as numbers and as text."""
    page = dict(stats(kb).sections)
    assert page["category descriptions per category and model"].rows == (
        ("cat", "SmolLM2", 1, 1),
        ("dog", "SmolLM2", 6, 0),
    )
    assert page["rejected descriptions by reason"].rows == (("category", "refusal", 1),)
    assert page["samples that were turned away"].rows == (("ingest", 1, "t.png: no such file"),)
    assert page["embeddings"].rows == (("text", "minilm-0123456789ab", "category_texts", 7, 2),)
    assert page["embedding centers"].rows == (("visual", "train", "minilm", 1, 1),)
    assert page["controls"].rows == (("class_name", 2, 2), ("random_words", 2, 4), ("templates", 2, 4))
    assert page["requests in the ledger"].rows == ()
    assert "SmolLM2" in str(stats(kb))


def record(kb: Path, entries: list[Entry]) -> None:
    """Put entries into the ledger."""

    async def run() -> None:
        async with open_ledger(kb) as ledger:
            await asyncio.gather(*map(ledger.record, entries))

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


def test_stats_count_the_ledger(kb: Path) -> None:
    """Requests per provider and way, answered and failed, with known dollars and answers without a price."""
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

    async def break_off() -> None:
        async with open_ledger(kb) as ledger:
            await ledger.write(partial(write_off, usd=0.5))

    asyncio.run(break_off())
    assert dict(stats(kb).sections)["requests in the ledger"].rows == (
        *answer.rows,
        ("(broke off)", "", None, None, None, 0.5, None),
    )


def test_stats_of_a_ledger_that_cannot_be_read(kb: Path) -> None:
    """A damaged one is to be restored; one of an older format is brought up to date by a command."""
    (kb / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(KnowledgeBaseError, match=r"ledger\.sqlite.*restore it from a backup"):
        stats(kb)
    (kb / "ledger.sqlite").unlink()
    with closing(sqlite3.connect(kb / "ledger.sqlite")) as ledger:
        ledger.execute("PRAGMA user_version = 1")
    with pytest.raises(KnowledgeBaseError, match="unibind kb reparse"):
        stats(kb)


@pytest.mark.parametrize("name", ["dog", "DOG", " Dog ", "doggy"])
def test_show_finds_a_category_by_id_name_or_alias(kb: Path, name: str) -> None:
    """Any spelling of a category gives its texts, rejects and centers."""
    page = dict(show(kb, name).sections)
    assert page["category"].rows[0][0] == "dog"
    assert len(page["descriptions"].rows) == 6
    assert page["embedding centers"].rows == ((0, 0.5, "visual", "train", "A dog is number 0."),)


def test_show_suggests(kb: Path) -> None:
    """An unknown category gives the nearest one; texts cannot send control characters to the terminal."""
    with pytest.raises(InputError, match="no category 'dug'; did you mean 'DOG'"):
        show(kb, "dug")
    with pytest.raises(InputError, match="there are 2"):
        show(kb, "zzzz")
    told = str(show(kb, "cat"))
    assert "\x1b" not in told
    assert "I cannot say \\x1b[31m that." in told


def test_sql_reads(kb: Path) -> None:
    """Queries over the views give rows; every view is there, empty ones with their columns."""
    answer = sql(kb, "SELECT category_id, count(*) AS n FROM v_descriptions GROUP BY 1 ORDER BY 1")
    assert (answer.columns, answer.rows) == (("category_id", "n"), (("cat", 2), ("dog", 6)))
    assert str(answer) == "category_id  n\n-----------  -\ncat          2\ndog          6"
    for view in VIEWS:
        sql(kb, f"DESCRIBE {view}")
        sql(kb, f"SELECT * FROM {view}")
    assert str(sql(kb, "SELECT * FROM v_sample_vectors")) == "(no rows)"
    nearest = sql(
        kb, "SELECT array_inner_product(vector, [1, 0]::FLOAT[2]) FROM v_category_vectors ORDER BY 1"
    )
    assert nearest.rows[-1] == (1.0,)
    assert sql(kb, "SELECT created_at FROM v_descriptions LIMIT 1").rows[0][0] == datetime(
        2025, 1, 1, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "query",
    [
        "COPY v_samples TO 'stolen.csv'",
        "COPY (SELECT 1) TO '{kb}/x.parquet'",
        "DROP VIEW v_samples",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH '{kb}/x.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "EXPORT DATABASE '{kb}/x'",
        "SELECT 1; DROP VIEW v_samples",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM 'https://example.org/a.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{kb}/x.csv'",
        "SELECT * FROM statements",
        "SELECT * FROM v_sample",
        "SELEC 1",
        "",
        "-- nothing",
    ],
)
def test_sql_cannot_write_or_look_elsewhere(kb: Path, query: str) -> None:
    """Writing, settings, other files, the network and Python's variables are refused in one line."""
    before = sorted(kb.parent.rglob("*"))
    with pytest.raises(InputError) as error:
        sql(kb, query.replace("{kb}", str(kb).replace("'", "''")))
    assert "\n" not in str(error.value)
    assert sorted(kb.parent.rglob("*")) == before


def test_a_locked_connection(kb: Path) -> None:
    """What `connect` hands out cannot be opened up again."""
    with connect(kb) as connection, pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")


def test_no_knowledge_base_and_damaged_files(kb: Path, tmp_path: Path) -> None:
    """A missing knowledge base and a torn file are told with their place."""
    with pytest.raises(KnowledgeBaseError, match="no knowledge base yet"):
        stats(tmp_path)
    (kb / "centers.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(KnowledgeBaseError, match="damaged"):
        stats(kb)
    (kb / "centers.parquet").unlink()
    part = kb / "descriptions" / "category" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(KnowledgeBaseError, match="damaged"):
        stats(kb)
    write_table(part, [], REJECTS)
    with pytest.raises(KnowledgeBaseError, match="other columns"):
        show(kb, "dog")


def docs_queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def ask_files(kb: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Run a query of the page as its reader would: in the folder, with DuckDB and nothing of ours."""
    monkeypatch.chdir(kb)
    with closing(duckdb.connect()) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return rows


def test_every_query_of_the_page_runs(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each SQL block of docs/duckdb.md gives rows on the bare Parquet files."""
    queries = docs_queries()
    assert len(queries) == 6
    for query in queries:
        assert ask_files(kb, query, monkeypatch)


def test_the_page_answers_its_questions(kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions per category and model, rejected rows by reason, and the five nearest are right."""
    per_model, reasons, turned_away, nearest, *_ = docs_queries()
    assert ask_files(kb, per_model, monkeypatch) == [("cat", "SmolLM2", 1, 1), ("dog", "SmolLM2", 6, 0)]
    assert [row[:3] for row in ask_files(kb, reasons, monkeypatch)] == [("category", "refusal", 1)]
    assert ask_files(kb, turned_away, monkeypatch) == [("ingest", "t", "t.png: no such file")]
    table = pq.ParquetFile(next((kb / "embeddings").rglob("part-*.parquet"))).read()
    vectors = np.array(table["vector"].to_pylist())
    given = int(np.argmin(table["id"].to_pylist()))
    cosines = np.delete(vectors @ vectors[given], given)
    expected = np.sort(cosines)[::-1][:5].round(4)
    np.testing.assert_allclose([row[2] for row in ask_files(kb, nearest, monkeypatch)], expected, atol=1e-4)
