"""kb_builder.browse.sources: which files the views read, and how their paths are quoted for DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from data.errors import InputError, KnowledgeBaseError
from kb_builder.browse.query import sql
from kb_builder.browse.sources import quoted
from kb_builder.store.table import part_paths, write_vectors
from kb_builder.tables.schemas import REJECTS, write_table


def test_only_what_the_manifest_names_is_read(browsed_kb: Path) -> None:
    """A file that a writer has not finished with is not in the views."""
    (part,) = part_paths(browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "category_texts")
    (part.parent / "part-00001-unfinished.parquet").write_bytes(part.read_bytes())
    assert sql(browsed_kb, "SELECT count(*) FROM v_category_vectors").rows == ((7,),)


def test_a_table_of_other_columns_is_named(browsed_kb: Path) -> None:
    """An earlier version's table is not read as today's."""
    write_table(browsed_kb / "centers.parquet", [], REJECTS)
    with pytest.raises(KnowledgeBaseError, match=r"centers\.parquet has other columns"):
        sql(browsed_kb, "SELECT 1")


def test_a_damaged_shard_is_named(browsed_kb: Path) -> None:
    """A file of vectors that is torn, or of another length than its encoder's."""
    folder = browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "category_texts"
    (part,) = part_paths(folder)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(KnowledgeBaseError, match=rf"{part.name} is damaged"):
        sql(browsed_kb, "SELECT 1")
    write_vectors(folder, ids=["a"], groups=["dog"], vectors_ND=np.array([[1.0, 0.0, 0.0]]))
    with pytest.raises(
        KnowledgeBaseError, match=r"part-00000-\w+\.parquet has .* another dimension than the 2"
    ):
        sql(browsed_kb, "SELECT 1")


def test_damaged_cards_are_named(browsed_kb: Path) -> None:
    """encoders.json and the card of the encoder that it names."""
    card = browsed_kb / "embeddings" / "minilm-0123456789ab-float16" / "encoder.json"
    for damaged in (card, card.parent.parent / "encoders.json"):
        damaged.write_text("{", encoding="utf-8")
        with pytest.raises(
            KnowledgeBaseError, match=rf"{damaged.name}: missing or damaged; run `unibind encode`"
        ):
            sql(browsed_kb, "SELECT 1")


def test_a_path_that_duckdb_cannot_express(browsed_kb: Path) -> None:
    """A backslash beside a star has no spelling; the message says what to do."""
    moved = browsed_kb.rename(browsed_kb.parent / "back\\slash*")
    with pytest.raises(InputError, match="rename it"):
        sql(moved, "SELECT 1")


@pytest.mark.parametrize("text", ["", "it's", "a\nb\x1b[31m'", "\x00", "é\u202e", "\n"])
def test_literals_are_printable_and_exact(text: str) -> None:
    """The literal of any text can be printed and evaluates to the text."""
    assert quoted(text).isprintable()
    assert duckdb.sql(f"SELECT {quoted(text)}").fetchall() == [(text,)]
