"""Rows of the descriptions table."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kb_builder.describe.rows import JudgedText, RowOrigin, RowQuestion, description_row, row_id
from kb_builder.gates.names import normalise
from kb_builder.gates.verdict import Verdict
from kb_builder.tables.schemas import DESCRIPTIONS, read_rows, write_table

QUESTION = RowQuestion(
    kind="category",
    subject_id="dog",
    modality=None,
    template_id="plain",
    template_version="1",
    prompt_hash="p",
    request_key="k",
)
ORIGIN = RowOrigin(
    provider="fake",
    model_requested="m",
    model_resolved="m",
    finish_reason="stop",
    attempts=1,
    latency_ms=1.5,
    created_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    source="fake",
    run_id="r",
)
JUDGED = JudgedText("A dog has four legs.", 8, Verdict("ok"))


def test_a_row_fits_the_schema_and_survives_the_file(tmp_path: Path) -> None:
    """A row has exactly the schema's columns and is read back as it was written."""
    row = description_row(QUESTION, ORIGIN, JUDGED)
    write_table(tmp_path / "part.parquet", [row], DESCRIPTIONS)
    assert read_rows(tmp_path / "part.parquet") == [row]


def test_derived_columns() -> None:
    """The hash is of the normalised text, the id of key, choice, item and parser version."""
    row = description_row(QUESTION, ORIGIN, JUDGED)
    assert (row["category_id"], row["sample_id"]) == ("dog", None)
    assert row["text_norm_hash"] == hashlib.sha256(b"a dog has four legs").hexdigest()
    assert row["n_chars"] == 20
    about_sample = description_row(replace(QUESTION, kind="sample"), ORIGIN, JUDGED)
    assert (about_sample["category_id"], about_sample["sample_id"]) == (None, "dog")
    ids = {
        row["row_id"],
        description_row(QUESTION, ORIGIN, replace(JUDGED, item=1))["row_id"],
        description_row(QUESTION, ORIGIN, JUDGED, parser_version="other")["row_id"],
        description_row(replace(QUESTION, request_key="other"), ORIGIN, JUDGED)["row_id"],
        row_id("k", choice=1, item=0, parser_version=row["parser_version"]),
    }
    assert len(ids) == 5
    another_run = replace(ORIGIN, run_id="another run")
    assert description_row(QUESTION, another_run, JUDGED)["row_id"] == row["row_id"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ((replace(QUESTION, kind="thing"), ORIGIN, JUDGED), "kind 'thing'"),  # type: ignore[arg-type]
        ((QUESTION, ORIGIN, replace(JUDGED, verdict=Verdict("fine"))), "status 'fine'"),
        ((QUESTION, replace(ORIGIN, created_at=datetime(2026, 1, 1)), JUDGED), "time zone"),
    ],
)
def test_a_wrong_value_is_refused(records: tuple[RowQuestion, RowOrigin, JudgedText], message: str) -> None:
    """A kind or status outside the schema's list, or a time without zone, never reaches a table."""
    with pytest.raises(ValueError, match=message):
        description_row(*records)


@pytest.mark.parametrize(
    ("one", "other"),
    [("A dog,  barks!", "a DOG barks"), ("it\u2019s \uff21", "It's a"), ("caf\u00e9_x", "cafe\u0301 x")],
)
def test_normalise_ignores_what_does_not_matter(one: str, other: str) -> None:
    """Case, punctuation, white space and Unicode form do not make two texts differ."""
    assert normalise(one) == normalise(other)


def test_rows_of_marks_do_not_take_minutes() -> None:
    """Thousands of marks over one letter are no words; what is short is normalised as ever."""
    assert normalise("A\u0301 dog" + "\u0301\u0316" * 30_000 + " barks") == "\u00e1 do\u01f5 barks"
    assert normalise("E\u0301t\u00e9 " * 400) == " ".join(["\u00e9t\u00e9"] * 400)
