"""A variant in memory is the run that the stages would have made, and its answers are its outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from data.errors import TrainingError
from trainer.align.train import train
from trainer.evaluate.measure import evaluate
from trainer.localize.choose import localize
from trainer.settings import Evaluate, Localize, Train
from trainer.variant import Variant, hits_by_measure, run_variant

MakeKb = Callable[..., Path]
QUICK = Evaluate(
    bootstrap=1, few_shot=(), probe=False, sweeps=False, baselines=False, stacking_folds=0, repeats=0
)
VARIANT = Variant(Localize(k=5), Train(epochs=4, batch_size=48, learning_rate=0.02), QUICK)


def test_it_is_what_the_stages_make(make_kb: MakeKb, tmp_path: Path) -> None:
    """The same metrics as localize, train and evaluate give through files; and no file is written."""
    kb = make_kb()
    before = sorted(kb.rglob("*"))
    measured = run_variant(kb, VARIANT)
    assert sorted(kb.rglob("*")) == before
    localize(kb, VARIANT.localize)
    train(kb, tmp_path, VARIANT.train)
    assert measured.metrics == evaluate(kb, tmp_path, QUICK)


def test_answers_are_the_metrics_of_every_seed(make_kb: MakeKb) -> None:
    """Means over media modalities of top-1, and means and minima of recall@10, seed by seed."""
    kb = make_kb()
    measured = [run_variant(kb, replace(VARIANT, train=replace(VARIANT.train, seed=s))) for s in (0, 1)]
    found = hits_by_measure([(m.named, m.ranks) for m in measured])
    for split in ("seen", "unseen", "unseen_among_all"):
        expected = [
            np.mean(
                [
                    row["top1"]
                    for row in m.metrics["recognition"]
                    if (row["split"], row["anchors"]) == (split, "llm_centers") and row["modality"] != "text"
                ]
            )
            for m in measured
        ]
        assert found[split].values() == pytest.approx(expected, rel=1e-12)
    for level, prefix in (("category", "r10"), ("object", "object_r10")):
        r10 = [[r["r10"] for r in m.metrics["retrieval"] if r["level"] == level] for m in measured]
        assert found[f"{prefix}_mean"].values() == pytest.approx([np.mean(each) for each in r10], rel=1e-12)
        assert found[f"{prefix}_worst"].values() == pytest.approx([min(each) for each in r10], rel=1e-12)
    assert found["seen"].values()[0] != found["seen"].values()[1] or found["unseen"].values()[0] > 0.5


def test_other_anchors_take_the_centers_place(make_kb: MakeKb) -> None:
    """Trained on and named by class names; permuted texts name nothing; unknown anchors are refused."""
    kb = make_kb()
    by_name = run_variant(kb, replace(VARIANT, anchors="class_name"))
    rows = [row for row in by_name.metrics["recognition"] if row["anchors"] == "llm_centers"]
    assert {row["k"] for row in rows} == {1}
    permuted = run_variant(kb, replace(VARIANT, anchors="permuted"))
    own = run_variant(kb, VARIANT)
    among_all = [
        hits_by_measure([(m.named, m.ranks)])["unseen_among_all"].values()[0] for m in (permuted, own)
    ]
    assert among_all[0] < among_all[1] - 0.3  # among the few unseen ones, luck is half of it
    with pytest.raises(TrainingError, match="there are no anchors 'x'"):
        run_variant(kb, replace(VARIANT, anchors="x"))


def test_few_shots_and_few_texts_are_few(make_kb: MakeKb) -> None:
    """One sample per category and modality trains less; two texts per category give two centers."""
    kb = make_kb()
    few = run_variant(kb, replace(VARIANT, shots=1, localize=Localize(k=5, texts=2)))
    assert max(row["k"] for row in few.metrics["recognition"] if row["anchors"] == "llm_centers") == 2
    whole = run_variant(kb, VARIANT)
    tested = [pc.count_distinct(m.named["sample_id"]).as_py() for m in (few, whole)]
    assert tested[0] == tested[1]


def test_without_training_it_is_zero_shot(make_kb: MakeKb) -> None:
    """With training off, the encoder that shares the text space is measured."""
    kb = make_kb()
    measured = run_variant(
        kb, replace(VARIANT, train=Train(enabled=False), localize=Localize(k=5, rule="text"))
    )
    found = hits_by_measure([(measured.named, measured.ranks)])
    assert set(found) >= {"zero_shot"}
    assert "seen" not in found
