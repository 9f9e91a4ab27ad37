"""kb_builder.browse.query: DuckDB over a knowledge base, which reads and does nothing else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from data.errors import InputError, KnowledgeBaseError
from kb_builder import encoders
from kb_builder.browse import query as browse
from kb_builder.browse.overview import stats
from kb_builder.browse.query import connect, nearest, run_query, sql
from kb_builder.browse.views import VIEWS
from kb_builder.store.table import part_paths, write_vectors
from kb_builder.tables.schemas import CATEGORIES, REJECTS, write_table


@dataclass
class Compass:
    """An encoder whose vectors are all the first axis; it counts the texts."""

    name: str = "minilm"
    identity: str = "0123456789ab"
    parameters: int = 1
    read: int = 0

    def prepare(self, modality: str, source: str) -> str:
        return f"{modality}: {source}"

    def encode(self, batch: Sequence[str]) -> Any:
        self.read += len(batch)
        assert all(text.startswith("text: ") for text in batch)
        return np.array([[1.0, 0.0]] * len(batch), np.float32)


@pytest.fixture
def compass(monkeypatch: pytest.MonkeyPatch) -> Compass:
    compass = Compass()
    monkeypatch.setattr(encoders, "load_encoder", {"minilm": compass}.__getitem__)
    return compass


def files_below(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_sql_reads(browsed_kb: Path) -> None:
    """Queries over the views give rows; every view is there, empty ones with their columns."""
    answer = sql(browsed_kb, "SELECT category_id, count(*) AS n FROM v_descriptions GROUP BY 1 ORDER BY 1")
    assert (answer.columns, answer.rows) == (("category_id", "n"), (("cat", 2), ("dog", 6)))
    assert str(answer) == "category_id  n\n-----------  -\ncat          2\ndog          6"
    for view in VIEWS:
        if "(" not in view:
            sql(browsed_kb, f"DESCRIBE {view}")
            sql(browsed_kb, f"SELECT * FROM {view}")
    assert str(sql(browsed_kb, "SELECT * FROM v_sample_vectors")) == "(no rows)"
    assert sql(browsed_kb, "SELECT created_at FROM v_descriptions LIMIT 1").rows[0][0] == datetime(
        2025, 1, 1, tzinfo=UTC
    )


@pytest.mark.parametrize("query", ["EXPLAIN SELECT 1", "SHOW TABLES", "SUMMARIZE v_cost", "FROM v_cost;"])
def test_sql_takes_what_reads(browsed_kb: Path, query: str) -> None:
    """Not only SELECT."""
    assert sql(browsed_kb, query).rows


def test_vectors_are_read_as_floats_of_their_length(browsed_kb: Path) -> None:
    """Half floats on disk are FLOAT[2] in SQL, and near the written values."""
    found = sql(
        browsed_kb,
        "SELECT typeof(vector), array_inner_product(vector, [1, 0]::FLOAT[2]) AS x FROM v_category_vectors"
        " ORDER BY x DESC",
    ).rows
    assert {kind for kind, _ in found} == {"FLOAT[2]"}
    np.testing.assert_allclose([x for _, x in found], np.cos(np.deg2rad(10.0 * np.arange(7))), atol=1e-3)


def test_nearest_to_a_text(browsed_kb: Path, compass: Compass) -> None:
    """The texts by their angle to the given one, which is encoded once; its SQL can be run again."""
    answer = nearest(browsed_kb, "it's a dog; -- \x1b", k=3)
    assert answer.columns == ("category_id", "cosine", "text")
    assert [row[2] for row in answer.rows] == [f"A dog is number {n}." for n in range(3)]
    np.testing.assert_allclose([row[1] for row in answer.rows], np.cos(np.deg2rad([0, 10, 20])), atol=1e-3)
    assert compass.read == 1
    assert answer.query.isprintable()
    assert sql(browsed_kb, answer.query) == answer


def test_nearest_to_a_description(browsed_kb: Path) -> None:
    """The neighbours of a description by its row_id, itself left out."""
    (row_id,) = sql(browsed_kb, "SELECT row_id FROM v_descriptions WHERE text = 'A dog is number 5.'").rows[0]
    found = sql(browsed_kb, f"SELECT text FROM v_nearest_to('{row_id}', k := 2) ORDER BY text").rows
    assert found == (("A cat is small.",), ("A dog is number 4.",))


def test_nearest_leaves_out_what_the_vector_was_not_made_of(browsed_kb: Path, compass: Compass) -> None:
    """A text that changed since has a vector of the old one, whose cosine would not be its own."""
    folder = browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "category_texts"
    ids = [row_id for (row_id,) in sql(browsed_kb, "SELECT id FROM v_category_vectors").rows]
    write_vectors(
        folder,
        ids=ids,
        groups=["dog"] * len(ids),
        contents=["0" * 64] * len(ids),
        vectors_ND=np.array([[1.0, 0.0]] * len(ids), np.float32),
        encoder="0123456789ab",
    )
    assert nearest(browsed_kb, "a dog", k=3).rows == ()


def test_nearest_without_its_encoder(browsed_kb: Path, compass: Compass) -> None:
    """Another version of the encoder, imported vectors, and no vectors at all are reported."""
    compass.identity = "ba9876543210"
    with pytest.raises(InputError, match=r"another version of 'minilm'.*run `unibind encode` again"):
        nearest(browsed_kb, "a dog", k=1)
    (browsed_kb / "embeddings" / "encoders.json").unlink()
    with pytest.raises(InputError, match="no texts are encoded yet; run `unibind encode`"):
        nearest(browsed_kb, "a dog", k=1)


@pytest.mark.parametrize(
    "query",
    [
        "COPY v_samples TO 'stolen.csv'",
        "COPY (SELECT 1) TO '{kb}/x.parquet'",
        "COPY (SELECT 1) TO '{kb}/centers.parquet'",
        "WITH x AS (COPY (SELECT 1) TO '{kb}/centers.parquet') SELECT 1",
        "WITH x AS (COPY (SELECT 1) TO '{glob}/centers.parquet') FROM x",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{kb}/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{kb}/centers.parquet'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{kb}/centers.parquet'",
        "/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{kb}/centers.parquet'",
        "FROM query('COPY (SELECT 1) TO ''x.csv''')",
        "FROM query('SELECT * FROM ''/etc/passwd''')",
        "PREPARE p AS COPY (SELECT 1) TO '{kb}/centers.parquet'",
        "DROP VIEW v_samples",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO v_samples SELECT * FROM v_samples",
        "ATTACH '{kb}/x.db'",
        "ATTACH '{kb}/ledger.sqlite' (TYPE sqlite)",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE SECRET (TYPE s3)",
        "EXPORT DATABASE '{kb}/x'",
        "IMPORT DATABASE '{kb}'",
        "SELECT 1; DROP VIEW v_samples",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_blob('{kb}/embeddings/encoders.json')",
        "SELECT * FROM parquet_metadata('{kb}/../x.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM query_table('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM 'https://example.org/a.parquet'",
        "SELECT getenv('HOME')",
        "SELECT * FROM statements",
        "SELECT * FROM v_sample",
        "SELECT ?",
        "SELEC 1",
        "SELECT '\ud800'",
        "",
        ";",
        "-- nothing",
    ],
)
def test_sql_cannot_write_or_look_elsewhere(browsed_kb: Path, query: str) -> None:
    """Writing, settings, other files, the network and Python's variables are refused in one line."""
    statements = [query]  # a Python variable that no query may see
    before = files_below(browsed_kb.parent)
    for mark, path in (("{kb}", str(browsed_kb)), ("{glob}", browse.glob_escaped(browsed_kb))):
        statements[0] = statements[0].replace(mark, path.replace("'", "''"))
    with pytest.raises(InputError) as error:
        sql(browsed_kb, statements[0])
    assert "\n" not in str(error.value)
    assert files_below(browsed_kb.parent) == before


def test_a_locked_connection(browsed_kb: Path) -> None:
    """What `connect` hands out cannot be opened up again."""
    with connect(browsed_kb) as connection, pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")


def test_a_huge_result_is_cut_and_says_so(browsed_kb: Path) -> None:
    """Ten thousand rows are shown, more only by asking for them; fewer come without a note."""
    answer = sql(browsed_kb, "FROM range(1_000_000_000_000)")
    assert len(answer.rows) == 10_000
    assert str(answer).endswith("DuckDB itself, with `unibind kb views`)")
    assert str(sql(browsed_kb, "FROM range(10_000)")).endswith("\n 9999")


@pytest.mark.parametrize("wait", [0.1, 0.2, 0.5])
def test_ctrl_c_ends_a_query(browsed_kb: Path, wait: float) -> None:
    """A query that would take days ends as KeyboardInterrupt, and the connection can be used again."""
    with connect(browsed_kb) as connection:
        timer = threading.Timer(wait, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run_query(
                connection, "SELECT sum(hash(a.range)) FROM range(1_000_000_000_000) AS a, range(1_000) AS b"
            )
        timer.join()
        assert run_query(connection, "SELECT 1").rows == ((1,),)


def test_no_knowledge_base(tmp_path: Path) -> None:
    """A folder without one is reported with its path."""
    with pytest.raises(KnowledgeBaseError, match="no knowledge base yet"):
        sql(tmp_path, "SELECT 1")


def test_an_empty_knowledge_base(tmp_path: Path) -> None:
    """Before the first stage has found anything, every view is there and empty."""
    write_table(tmp_path / "categories.parquet", [], CATEGORIES)
    for view in VIEWS:
        if "(" not in view:
            assert sql(tmp_path, f"FROM {view}").rows == ()
    assert sql(tmp_path, "FROM v_nearest_to('x')").rows == ()
    with pytest.raises(InputError, match="no texts are encoded yet"):
        nearest(tmp_path, "x", k=1)


@pytest.mark.parametrize("cut", [20, 2000])
def test_a_damaged_table_is_named(browsed_kb: Path, cut: int) -> None:
    """A file without its end, and one whose pages were overwritten."""
    part = browsed_kb / "descriptions" / "category" / "part-00001.parquet"
    raw = part.read_bytes()
    part.write_bytes(raw[:-cut] if cut == 20 else raw[:4] + bytes(cut) + raw[4 + cut :])
    with pytest.raises(
        KnowledgeBaseError, match=r"part-00001\.parquet is damaged.*delete it and run the stage"
    ):
        sql(browsed_kb, "SELECT max(COLUMNS(*)) FROM v_descriptions")
    with pytest.raises(KnowledgeBaseError, match=r"part-00001\.parquet is damaged"):
        stats(browsed_kb)


def test_what_is_replaced_while_it_is_read(browsed_kb: Path) -> None:
    """A writer deleted a shard, or replaced a part: the query has to be run again."""
    folder = browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "category_texts"
    old = part_paths(folder)
    with (
        pytest.raises(
            KnowledgeBaseError, match=rf"{old[0].name} was replaced by a run .* run the query again"
        ),
        connect(browsed_kb) as connection,
    ):
        write_vectors(folder, ids=["a"], groups=["dog"], vectors_ND=np.array([[1.0, 0.0]]))
        run_query(connection, "SELECT sum(vector[1]) FROM v_category_vectors")
    part = browsed_kb / "rejects" / "ingest.parquet"
    with (
        pytest.raises(
            KnowledgeBaseError, match=r"ingest\.parquet was replaced by a run .* run the query again"
        ),
        connect(browsed_kb) as connection,
    ):
        run_query(connection, "FROM v_rejects")
        write_table(part, [], REJECTS)
    assert sql(browsed_kb, "FROM v_rejects").rows == ()
