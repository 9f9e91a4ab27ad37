"""Texts that a person strikes out or adds: recorded, sealed, and taken in by the stages that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.errors import DamagedError, InputError
from data.seals import is_sealed
from kb_builder.added.by_hand import MOST_LETTERS, NAME, add_by_hand, row_key, texts_by_hand
from kb_builder.added.pack import pack
from kb_builder.added.sources import FOLDER, read_sources, remove_source
from kb_builder.added.struck import FILE, full_id, read_struck, restore, strike
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.explain import explain
from kb_builder.verify.verify import verify
from pipeline.project import ProjectFile, load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.run.sealing import seal_all
from tests.planted import register_encoder


@pytest.fixture
def project(cups: Path) -> ProjectFile:
    """A copy of the finished run of tests/planted.py."""
    register_encoder()
    return load_project(cups)


def _ok(kb: Path, category: str) -> list[dict[str, Any]]:
    rows = read_rows(kb / "descriptions" / "category")
    return [row for row in rows if row["status"] == "ok" and row["category_id"] == category]


def _ran(project: ProjectFile) -> set[str]:
    return {each.name for each in run_stages(project, plan(project)) if not each.skipped}


def test_a_struck_text_is_no_center_until_it_is_taken_back(project: ProjectFile) -> None:
    """localize and what follows run again, nothing before them; taken back, the centers are as before."""
    kb = project.kb
    before = read_rows(kb / "centers.parquet")
    row = before[0]["row_id"]
    struck = strike(kb, full_id(kb, row[:10]), reason="  says \n nothing ")
    assert struck.reason == "says nothing" and struck.text and read_struck(kb) == {row: struck}
    assert _ran(project) == {"localize", "train", "evaluate", "report"}
    after = read_rows(kb / "centers.parquet")
    assert row not in {each["row_id"] for each in after} and len(after) == len(before)
    assert restore(kb, row) == struck and not (kb / FILE).exists()
    _ran(project)
    assert read_rows(kb / "centers.parquet") == before


def test_verify_explain_and_pack_know_of_it(project: ProjectFile, tmp_path: Path) -> None:
    """The file is sealed like the others; its damage says how to mend it; a pack leaves the text out."""
    kb = project.kb
    (first, *_) = _ok(kb, "red-cup")
    packed = pack(
        kb, tmp_path / "a", project.describe.categories, project="cups", encoder="words"
    ).category_texts
    strike(kb, first["row_id"], reason="dull")
    assert verify(kb).clean
    seal_all(project)
    assert is_sealed(kb / FILE) and verify(kb).clean
    assert "struck out by a person" in str(explain(kb, first["row_id"])) and "dull" in str(
        explain(kb, first["row_id"])
    )
    again = pack(
        kb, tmp_path / "b", project.describe.categories, project="cups", encoder="words"
    ).category_texts
    assert again == packed - 1
    (kb / FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(DamagedError, match="strike out its texts again"):
        read_struck(kb)
    assert "unibind kb strike" in str(verify(kb))


@pytest.mark.parametrize("prefix", ["", "abc", "zzzzzz", "0" * 64])
def test_what_is_no_text_cannot_be_struck(project: ProjectFile, prefix: str) -> None:
    """An unknown or too short id, and the same text twice."""
    with pytest.raises(InputError, match="row_id"):
        full_id(project.kb, prefix)
    with pytest.raises(InputError, match="row_id"):
        strike(project.kb, prefix, reason="")
    row = _ok(project.kb, "red-cup")[0]["row_id"]
    strike(project.kb, row, reason="")
    with pytest.raises(InputError, match="already"):
        strike(project.kb, row, reason="")
    with pytest.raises(InputError, match="not struck out"):
        restore(project.kb, prefix)


def test_a_text_by_hand_is_a_source_like_a_file(project: ProjectFile) -> None:
    """Judged by the gates, cited, encoded; a second one changes nothing of the first."""
    kb = project.kb
    add_by_hand(kb, "red cup", "A red cup  is small and has one handle.")
    assert _ran(project) >= {"describe-contrasts", "encode", "localize"}
    (first,) = [row for row in _ok(kb, "red-cup") if row["source"] == "added"]
    assert first["text"] == "A red cup is small and has one handle."
    assert first["request_key"] == row_key("red cup", first["text"])
    assert (first["provider"], first["model_resolved"], first["template_id"]) == (
        NAME,
        "a person",
        "added/by-hand",
    )
    add_by_hand(kb, "red cup", "This says nothing about it.")
    add_by_hand(kb, "blue ball", "A blue ball rolls far on a smooth floor.")
    _ran(project)
    rows = [row for row in read_rows(kb / "descriptions" / "category") if row["source"] == "added"]
    assert {row["status"] for row in rows} == {"ok", "no_name"} and len(rows) == 3
    assert first in rows
    assert verify(kb).clean
    assert len(texts_by_hand(kb)) == 3
    remove_source(kb, NAME)
    assert not read_sources(kb) and not (kb / FOLDER).exists()
    _ran(project)
    assert not [row for row in read_rows(kb / "descriptions" / "category") if row["source"] == "added"]


def test_odd_texts_by_hand_are_refused(project: ProjectFile) -> None:
    """Nothing, too much, and the same again."""
    kb = project.kb
    for text, words in (("  \n", "empty"), ("x" * (MOST_LETTERS + 1), "at most")):
        with pytest.raises(InputError, match=words):
            add_by_hand(kb, "red cup", text)
    add_by_hand(kb, "red cup", "A red cup.")
    with pytest.raises(InputError, match="before"):
        add_by_hand(kb, "red cup", " A red  cup. ")
