"""Every query of docs/duckdb.md, run over a small knowledge base that the project's own stages made."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from data.files import hash_text
from data.seals import discard
from kb_builder.browse.query import sql
from kb_builder.browse.views import script
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows
from pipeline.project import load_project
from pipeline.run.runner import run_stage

DOCS = Path(__file__).parents[2] / "docs" / "duckdb.md"
QUERIES: list[str] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
PROJECT = """\
name = "docs"

[data]
manifest = "manifest.csv"

[describe.categories]
describer = "fake"
n = 4

[localize]
k = 2
"""
THINGS = ("brass bell", "rubber ball", "glass cone")
# The columns of each answer, in the order of the page.
COLUMNS = [
    "category_id model ok rejected",
    "kind reason n_rows an_example",
    "text provider model_resolved template_id aspect temperature seed request_key",
    "category_id aspect texts",
    "category_id texts",
    "text categories they_are",
    "model texts accepted different mean_tokens centers",
    "kind about n_tokens status text",
    "provider model kind source ok requests known_cost_usd texts_of_unknown_cost known_cost_usd_per_ok",
    "day model requests known_cost_usd",
    "category_id cosine text",
    "category_id text cosine",
    "category_id text cosine",
    "category_id cosine one other",
    "category_id mean_cosine text",
    "one other cosine",
    "category_id rank score rule guided_by text",
    "category_id centers",
    "one other cosine",
    "modality split samples categories",
    "modality sample_id uri",
    "stage sample_id reason",
    "modality samples recall_at_1",
    "role folder table state vectors an_example",
    "role folder name dim dtype modalities",
    "Count",
    "Count",
    "Count",
    "aspect rated mean_rating",
]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three categories with a text and three photos each, one of them torn, from the manifest to the centers.

    Afterwards, one text was changed by hand to another category's, word for word.
    """
    folder = tmp_path_factory.mktemp("project")
    draw = np.random.default_rng(0)
    lines = ["sample_id,uri,modality,split,category,description"]
    for place, thing in enumerate(THINGS):
        for number, split in enumerate(("train", "test", "test")):
            uri = f"{place}-{number}.png"
            Image.fromarray(draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / uri)
            lines.append(f"{place}-{number},{uri},image,{split},{thing},")
        (folder / f"{place}.txt").write_text(f"A {thing} on a shelf.", encoding="utf-8")
        long = " and ".join([f"a {thing}"] * 30)
        lines.append(f"{place}-text,{place}.txt,text,test,{thing},Here you see {long}.")
    (folder / "0-2.png").write_bytes(b"not a picture")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "unibind.toml").write_text(PROJECT, encoding="utf-8")
    project = load_project(folder / "unibind.toml")
    for stage in (
        "world",
        "ingest",
        "describe-categories",
        "describe-contrasts",
        "describe-samples",
        "encode",
        "localize",
    ):
        run_stage(project, stage)
    parts = sorted((project.kb / "descriptions" / "category").glob("part-*.parquet"))
    rows = read_rows(parts[-1])
    accepted = [row for row in rows if row["status"] == "ok"]
    other = next(row for row in accepted if row["category_id"] != accepted[0]["category_id"])
    accepted[0] |= {"text": other["text"], "text_norm_hash": other["text_norm_hash"]}
    accepted[1]["status"] = "dup_near"
    write_part(project.kb, "category", parts[-1].stem, rows)
    discard(project.kb)  # the checksums would name what was changed by hand
    ratings = (
        "COPY (SELECT row_id, 4 AS rating FROM 'descriptions/category/*.parquet') TO '../ratings.parquet'"
    )
    with inside(project.kb) as connection:
        connection.execute(ratings)
    return project.kb


@contextmanager
def inside(kb: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB as a reader of the page has it: in the knowledge base's folder, with the views' script run."""
    before = Path.cwd()
    os.chdir(kb)
    try:
        with duckdb.connect() as connection:
            connection.execute(script(kb))
            yield connection
    finally:
        os.chdir(before)


def answer(kb: Path, query: str) -> tuple[str, list[tuple[Any, ...]]]:
    """The columns and rows of a query; what needs the encoder is asked of `unibind kb`, as the page says."""
    if "v_nearest(" in query:
        found = sql(kb, query)
        return " ".join(found.columns), list(found.rows)
    with inside(kb) as connection:
        rows = connection.execute(query).fetchall()
        return " ".join(column[0] for column in connection.description or ()), rows


def of(columns: str, nth: int = 0) -> str:
    """The nth query of the page that has these columns."""
    return [query for query, named in zip(QUERIES, COLUMNS, strict=True) if named == columns][nth]


def test_the_page_has_a_query_for_each_row_of_the_table_above() -> None:
    """A query that is added to the page is not left untested."""
    assert len(QUERIES) == len(COLUMNS) >= 15


@pytest.mark.parametrize("place", range(len(COLUMNS)), ids=COLUMNS)
def test_every_query_of_the_page_gives_rows(kb: Path, place: int) -> None:
    """Each SQL block gives the columns that it names, and at least one row."""
    columns, rows = answer(kb, QUERIES[place])
    assert columns == COLUMNS[place]
    assert rows


def test_counts_of_the_page_are_right(kb: Path) -> None:
    """Rejects, duplicates and coverage against a count over the rows themselves."""
    rows = [row for path in (kb / "descriptions").glob("*/*.parquet") for row in read_rows(path)]
    rejected = Counter((row["kind"], row["status"]) for row in rows if row["status"] != "ok")
    _, found = answer(kb, of("kind reason n_rows an_example"))
    assert {row[:2]: row[2] for row in found} == rejected
    texts = [row for row in rows if row["kind"] == "category" and row["status"] == "ok"]
    _, found = answer(kb, of("category_id texts"))
    assert dict(found) == Counter(row["category_id"] for row in texts)
    hashes = Counter(row["text_norm_hash"] for row in texts)
    _, found = answer(kb, of("text categories they_are"))
    assert [row[1] for row in found] == [2]
    assert hashes[hash_text(found[0][0].lower().rstrip("."))] in {0, 2}
    _, found = answer(kb, of("modality sample_id uri"))
    assert ("image", "0-2", "0-2.png") in found


def test_the_nearest_of_the_page_are_right(kb: Path) -> None:
    """With views and without, the five nearest are those of a product of matrices."""
    table = duckdb.sql(f"FROM '{kb}/embeddings/minilm-*/category_texts/*.parquet' ORDER BY id")
    ids, _, _, vectors = zip(*table.fetchall(), strict=True)
    x_ND = np.array(vectors)
    cosines_N = x_ND @ x_ND[0]
    current = {row[0] for row in sql(kb, "SELECT id FROM v_vector_state WHERE state = 'current'").rows}
    expected = sorted((cosines_N[i] for i in range(1, len(ids))), reverse=True)[:5]
    _, found = answer(kb, of("category_id text cosine", 1))
    np.testing.assert_allclose([row[2] for row in found], expected, atol=1e-3)
    expected = sorted((cosines_N[i] for i in range(1, len(ids)) if ids[i] in current), reverse=True)[:5]
    _, found = answer(kb, of("category_id text cosine", 0))
    np.testing.assert_allclose([row[2] for row in found], expected, atol=1e-3)


def test_the_state_of_the_page_is_what_was_done_to_the_knowledge_base(kb: Path) -> None:
    """One text was changed and one is accepted no longer: two stale vectors."""
    _, found = answer(kb, of("role folder table state vectors an_example"))
    assert [(row[0], row[2], row[3], row[4]) for row in found] == [("text", "category_texts", "stale", 2)]


def test_the_files_of_the_page_hold_what_they_say(kb: Path) -> None:
    """CSV, JSON and Parquet written by the page's queries can be read again, whole."""
    for columns, nth in (("Count", 0), ("Count", 1), ("Count", 2)):
        answer(kb, of(columns, nth))
    outside = kb.parent
    texts = len(duckdb.sql(f"FROM '{outside}/descriptions.csv'"))
    assert texts == len(duckdb.sql(f"FROM '{outside}/descriptions_with_vectors.parquet'"))
    assert len(duckdb.sql(f"FROM '{outside}/centers.json'")) == 2 * len(THINGS)
