"""The bare name as what texts are measured against, and as a center."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.store.table import read_vectors
from kb_builder.tables.schemas import CENTERS, CONTROLS, DESCRIPTIONS, read_rows, write_table
from trainer.inputs import load_class_names, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.score.geometry import unit_rows
from trainer.settings import Localize

MakeKb = Callable[..., Path]


def _ranked(kb: Path) -> dict[str, list[tuple[str, str, str | None]]]:
    """Category -> (row id, rule, guide) of its centers, best first."""
    ranked: dict[str, list[tuple[str, str, str | None]]] = {}
    for row in sorted(read_rows(kb / "centers.parquet"), key=lambda row: (row["category_id"], row["rank"])):
        ranked.setdefault(row["category_id"], []).append((row["row_id"], row["rule"], row["guided_by"]))
    return ranked


def test_names_come_in_the_order_of_the_categories(make_kb: MakeKb) -> None:
    """Row c is the vector of category c's name."""
    base = open_kb(make_kb())
    names = load_class_names(base)
    assert names.row_ids == tuple(f"class_name-{category}-0" for category in base.categories)
    stored = read_vectors(base.encoder("text") / "controls")
    for row_id, name_D in zip(names.row_ids, names.vectors_CD, strict=True):
        np.testing.assert_array_equal(name_D, stored.vectors_ND[stored.ids.index(row_id)])


@pytest.mark.parametrize("options", [{"rule": "name"}, {"rule": "text", "with_name": True}], ids=str)
def test_a_name_without_vector_is_refused(make_kb: MakeKb, options: dict[str, object]) -> None:
    """One category's missing name names the file and the command, and writes no centers."""
    kb = make_kb()
    rows = [row for row in read_rows(kb / "controls.parquet") if row["row_id"] != "class_name-m1-s1-0"]
    write_table(kb / "controls.parquet", rows, CONTROLS)
    with pytest.raises(KnowledgeBaseError, match=r"controls.parquet: the name .* run `unibind encode`"):
        localize(kb, Localize(**options))  # type: ignore[arg-type]
    assert not (kb / "centers.parquet").exists()


@pytest.mark.parametrize("rule", ["visual", "distinct", "text", "name", "diverse"])
def test_the_name_is_the_first_of_k_centers(make_kb: MakeKb, rule: str) -> None:
    """With it, the best k - 1 texts follow, in the order that they have without it."""
    kb = make_kb()
    localize(kb, Localize(k=4, rule=rule))  # type: ignore[arg-type]
    without = _ranked(kb)
    summary = localize(kb, Localize(k=5, rule=rule, with_name=True))  # type: ignore[arg-type]
    for category, (first, *rest) in _ranked(kb).items():
        assert first == (f"class_name-{category}-0", "class_name", None)
        assert rest == without[category]
    assert (summary["centers"], summary["fewer_than_k"]) == (60, {})
    assert "class_name" not in summary["by_rule"]


def test_the_name_alone_is_the_control(make_kb: MakeKb) -> None:
    """With k = 1 the centers are the bare names: no label, and the unit vectors of `load_class_names`."""
    kb = make_kb()
    summary = localize(kb, Localize(k=1, with_name=True))
    base = open_kb(kb)
    centers, names = load_centers(base), load_class_names(base)
    assert centers.row_ids == names.row_ids
    np.testing.assert_array_equal(centers.vectors_ND, unit_rows(names.vectors_CD))
    assert summary["by_rule"]["class_name"] == 12
    assert not load_centers(base).labels_guided


def test_names_load_among_the_texts(make_kb: MakeKb) -> None:
    """Each center has the vector of its own row, name or text; a category without texts has its name."""
    kb = make_kb(texts=6)
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    rows = read_rows(path)
    for row in rows:
        if row["category_id"] == "m0-s1":
            row["status"] = "refusal"
    write_table(path, rows, DESCRIPTIONS)
    summary = localize(kb, Localize(k=3, with_name=True))
    assert summary["fewer_than_k"] == {"m0-s1": 1}
    base = open_kb(kb)
    centers = load_centers(base)
    assert centers.counts().tolist() == [3, 1] + [3] * 10
    vectors = {}
    for table in ("category_texts", "controls"):
        stored = read_vectors(base.encoder("text") / table)
        vectors |= dict(zip(stored.ids, stored.vectors_ND, strict=True))
    for row_id, center_D in zip(centers.row_ids, centers.vectors_ND, strict=True):
        expected = vectors[row_id].astype(np.float64)
        np.testing.assert_allclose(center_D, expected / np.linalg.norm(expected), atol=1e-7)


def test_centers_of_a_name_that_changed_are_stale(make_kb: MakeKb) -> None:
    """A name encoded under another row id asks for a new localization."""
    kb = make_kb()
    localize(kb, Localize(k=2, with_name=True))
    rows = read_rows(kb / "centers.parquet")
    table = [{**row, "row_id": row["row_id"].replace("class_name-m0", "class_name-x0")} for row in rows]
    write_table(kb / "centers.parquet", table, CENTERS)
    with pytest.raises(KnowledgeBaseError, match="run `unibind localize` again"):
        load_centers(open_kb(kb))
