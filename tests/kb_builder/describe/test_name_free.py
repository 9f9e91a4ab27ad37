"""Descriptions without the name, as texts of controls.parquet."""

from __future__ import annotations

from pathlib import Path

import pytest

from kb_builder.describe import name_free
from kb_builder.describe.name_free import name_free_texts
from kb_builder.tables.controls import NameFree, write_controls
from kb_builder.tables.schemas import DESCRIPTIONS, read_rows, write_table
from tests.planted import description_row, write_categories


def _write(kb: Path, prefix: str, texts: dict[str, str], *, category: str = "0", status: str = "ok") -> None:
    rows = [
        {**description_row(row_id, kind="category", category_id=category, status=status), "text": text}
        for row_id, text in texts.items()
    ]
    write_table(kb / "descriptions" / "category" / f"{prefix}-00000.parquet", rows, DESCRIPTIONS)


def test_every_valid_description_that_says_more_than_the_name(tmp_path: Path) -> None:
    """Of all passes, each with the row that it stands for; rejected descriptions are not taken."""
    write_categories(tmp_path, {"0": "dog", "1": "cat"})
    _write(tmp_path, "part", {"a": "The dog barks.", "b": "Dogs look nice."})
    _write(tmp_path, "contrast", {"c": "A dog fetches sticks."})
    _write(tmp_path, "added", {"d": "A cat purrs."}, category="1")
    assert list(name_free_texts(tmp_path)) == [
        NameFree("0", "a", "The thing barks."),
        NameFree("0", "c", "A thing fetches sticks."),
        NameFree("1", "d", "A thing purrs."),
    ]
    counts = write_controls(tmp_path, count=1, seed=0, name_free=name_free_texts(tmp_path))
    assert counts == {"class_name": 2, "name_free": 3, "random_words": 2, "templates": 2}
    rows = [row for row in read_rows(tmp_path / "controls.parquet") if row["control"] == "name_free"]
    assert [(row["stands_for"], row["category_id"], row["rank"]) for row in rows] == [
        ("a", "0", 0),
        ("c", "0", 1),
        ("d", "1", 0),
    ]
    others = [row for row in read_rows(tmp_path / "controls.parquet") if row["control"] != "name_free"]
    assert {row["stands_for"] for row in others} == {None}
    _write(tmp_path, "part", {"a": "The dog barks."}, status="no_name")
    assert [each.row_id for each in name_free_texts(tmp_path)] == ["c", "d"]


def test_without_categories_there_is_nothing(tmp_path: Path) -> None:
    """A project without labelled samples has no categories."""
    assert list(name_free_texts(tmp_path)) == []


def test_too_many_are_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All would be encoded twice, for the few that become centers."""
    monkeypatch.setattr(name_free, "MOST", 1)
    write_categories(tmp_path, {"0": "dog"})
    _write(tmp_path, "part", {"a": "The dog barks."})
    assert len(list(name_free_texts(tmp_path))) == 1
    _write(tmp_path, "added", {"b": "A dog fetches sticks."})
    assert list(name_free_texts(tmp_path)) == []
    assert "2 descriptions are more than 1" in capsys.readouterr().err
