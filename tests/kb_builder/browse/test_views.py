"""kb_builder.browse.views: the views as SQL that a DuckDB without any code of ours takes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from kb_builder.browse.query import sql
from kb_builder.browse.views import VIEWS, script
from kb_builder.tables.schemas import CATEGORIES, write_table

PLAIN = [view for view in VIEWS if "(" not in view]


def test_the_script_makes_every_view_in_a_bare_duckdb(browsed_kb: Path) -> None:
    """In another process, from another folder: the same columns and rows as `unibind kb` has."""
    code = (
        "import duckdb, sys; duckdb.execute(sys.stdin.read())\n"
        f"print([(v, duckdb.sql('FROM ' + v).columns, len(duckdb.sql('FROM ' + v))) for v in {PLAIN}])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], input=script(browsed_kb), capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    answers = {view: sql(browsed_kb, f"FROM {view}") for view in PLAIN}
    assert done.stdout.strip() == str([(v, [*a.columns], len(a.rows)) for v, a in answers.items()])
    assert len(answers["v_descriptions"].rows) == 8


def test_the_script_can_be_shown_to_a_terminal(browsed_kb: Path) -> None:
    """The folder's name has an escape sequence; no line of the script sends it."""
    assert all(line.isprintable() for line in script(browsed_kb).splitlines())


def test_the_script_is_run_twice(browsed_kb: Path) -> None:
    """In a database that has the views of an earlier day, they are replaced."""
    with closing(duckdb.connect()) as connection:
        connection.execute(script(browsed_kb))
        connection.execute(script(browsed_kb))
        nearest = "FROM v_nearest_to((SELECT min(id) FROM v_category_vectors), k := 4)"
        assert len(connection.execute(nearest).fetchall()) == 4


def test_the_script_says_what_it_leaves_out(browsed_kb: Path) -> None:
    """`v_nearest` is there to be read; it wants a function that only `unibind kb` has."""
    lines = script(browsed_kb).splitlines()
    assert "-- CREATE OR REPLACE MACRO v_nearest(text, k := 10) AS TABLE" in lines
    assert any("only `unibind kb` provides" in line for line in lines)


def test_a_glob_stands_for_many_files_only_where_it_finds_those(browsed_kb: Path) -> None:
    """All parts of descriptions are one pattern; an unfinished shard beside a finished one is left out."""
    assert "/descriptions/*/*.parquet'" in script(browsed_kb)
    folder = browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "category_texts"
    (part,) = folder.glob("*.parquet")
    (folder / "part-00001.parquet").write_bytes(b"unfinished")
    text = script(browsed_kb)
    assert f"/category_texts/{part.name}'" in text
    assert "part-00001.parquet" not in text.replace("/descriptions/category/part-00001.parquet", "")


def test_the_script_of_an_empty_knowledge_base(tmp_path: Path) -> None:
    """Every view is there, with its columns and no rows."""
    write_table(tmp_path / "categories.parquet", [], CATEGORIES)
    with closing(duckdb.connect()) as connection:
        connection.execute(script(tmp_path))
        for view in PLAIN:
            assert connection.sql(f"FROM {view}").fetchall() == []
        assert connection.sql("FROM v_category_vectors").columns == ["id", "group", "content", "vector"]


def test_a_table_of_an_earlier_version_has_nulls_where_it_lacks_a_column(browsed_kb: Path) -> None:
    """A samples.parquet from before `more_category_ids` and `up` is shown with them, and its script runs."""
    path = browsed_kb / "samples.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["more_category_ids", "up"]), path)
    answer = sql(browsed_kb, "FROM v_samples")
    assert set(answer.columns[-2:]) == {"more_category_ids", "up"}
    assert {row[-2:] for row in answer.rows} == {(None, None)}
    with closing(duckdb.connect()) as connection:
        connection.execute(script(browsed_kb))
        assert connection.execute("SELECT more_category_ids FROM v_samples").fetchone() == (None,)
