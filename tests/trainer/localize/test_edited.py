"""Localization with edits in memory gives what saving them and localizing gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.seals import discard
from kb_builder.added.struck import strike
from kb_builder.tables.schemas import CENTERS, read_rows
from pipeline.project import load_project
from trainer.inputs import open_category_texts, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.localize.edited import Edits, choose_edited
from trainer.settings import Localize


@pytest.mark.parametrize("rule", ["text", "diverse"])
def test_a_preview_is_what_is_saved(cups: Path, rule: str) -> None:
    """Striking two texts in memory and on disk, and taking them back."""
    project = load_project(cups)
    settings = Localize(k=3, rule=rule)  # type: ignore[arg-type]
    discard(project.kb)  # localization by itself seals nothing
    localize(project.kb, settings)
    before = read_rows(project.kb / "centers.parquet")
    rows = [row["row_id"] for row in before[:2]]
    base = open_kb(project.kb)
    table, centers = choose_edited(base, settings, Edits(struck=frozenset(rows)))
    for row in rows:
        strike(project.kb, row, reason="")
    discard(project.kb)
    localize(project.kb, settings)
    assert table.cast(CENTERS).to_pylist() == read_rows(project.kb / "centers.parquet")
    saved = load_centers(open_kb(project.kb))
    assert centers.row_ids == saved.row_ids and np.array_equal(centers.vectors_ND, saved.vectors_ND)
    back, _ = choose_edited(open_kb(project.kb), settings, Edits(restored=frozenset(rows)))
    assert back.to_pylist() == before


def test_an_added_text_can_become_a_center(cups: Path) -> None:
    """A text with the vector of the category's mean is chosen first; others stay in their order."""
    project = load_project(cups)
    base, settings = open_kb(project.kb), Localize(k=3, rule="text")
    texts = open_category_texts(base)
    _, vectors_ND = texts.read(base.index["red-cup"])
    mean_1D = vectors_ND.mean(axis=0, keepdims=True)
    mean_1D /= np.linalg.norm(mean_1D)
    edits = Edits(added={"red-cup": (["0" * 64], mean_1D)})
    table, centers = choose_edited(base, settings, edits)
    mine = [row for row in table.to_pylist() if row["category_id"] == "red-cup"]
    assert len(mine) == 3 and "0" * 64 in [row["row_id"] for row in mine]
    place = centers.row_ids.index("0" * 64)
    assert np.allclose(centers.vectors_ND[place], mean_1D[0], atol=1e-6)
