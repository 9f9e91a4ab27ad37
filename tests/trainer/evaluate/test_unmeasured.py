"""What could not be measured has its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.train import train
from trainer.evaluate.measure import evaluate
from trainer.localize.choose import localize
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
QUICK = Evaluate(
    bootstrap=10, few_shot=(), probe=False, sweeps=False, baselines=False, stacking_folds=0, repeats=0
)


def change(kb: Path, modality: str, **cells: Any) -> None:
    """Write other cells into the samples of one modality."""
    rows = read_rows(kb / "samples.parquet")
    changed = [row | cells if row["modality"] == modality else row for row in rows]
    write_table(kb / "samples.parquet", changed, SAMPLES)


def reasons(kb: Path, run: Path) -> dict[str | None, str]:
    return {row["modality"]: row["reason"] for row in evaluate(kb, run, QUICK)["unmeasured"]}


@pytest.mark.parametrize(
    ("cells", "trained", "reason"),
    [
        ({}, True, None),
        ({}, False, "the zero-shot encoder does not place it in the text space, and no head was trained"),
        ({"category_id": None}, False, "samples has a category"),
        ({"split": "test"}, False, "no labelled train sample to train a head on"),
        ({"split": "train"}, True, "no test sample has a category"),
        ({"split": "test"}, True, "no head: none of its train samples"),
    ],
)
def test_each_modality_has_a_row_or_a_reason(
    make_kb: MakeKb, tmp_path: Path, cells: dict[str, Any], trained: bool, reason: str | None
) -> None:
    """Sounds, which the planted zero-shot encoder does not take."""
    kb = make_kb()
    change(kb, "audio", **cells)
    localize(kb, Localize(k=5))
    if trained:
        train(kb, tmp_path, Train(epochs=1))
    found = reasons(kb, tmp_path)
    if reason is None:
        assert "audio" not in found
    else:
        assert reason in found["audio"]
    assert "image" not in found
