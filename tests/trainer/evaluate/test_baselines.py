"""Baselines of balance: the same recipe, drawn to bare names and to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from trainer.align.heads import Heads, load_heads
from trainer.align.train import fit, train
from trainer.evaluate.balance import balance_rows, baseline_heads
from trainer.evaluate.measure import evaluate, measure
from trainer.evaluate.retrieval import retrieval_rows
from trainer.evaluate.tasks import anchor_sets
from trainer.inputs import KnowledgeBase, load_controls, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import Centers
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
QUICK = Evaluate(bootstrap=1, few_shot=(), probe=False, sweeps=False)
RECIPE = Train(epochs=3, batch_size=48, learning_rate=0.02)


def _prepared(kb: Path, run: Path, recipe: Train) -> tuple[KnowledgeBase, dict[str, Centers], Heads]:
    localize(kb, Localize(k=5))
    train(kb, run, recipe)
    base = open_kb(kb)
    return base, anchor_sets(load_centers(base), load_controls(base), seed=0), load_heads(run)


def test_each_is_the_runs_recipe_but_for_what_it_is_drawn_to(make_kb: MakeKb, tmp_path: Path) -> None:
    """Heads equal to the bit those of a run with names as centers, and of one with `align = "image"`."""
    base, anchors, heads = _prepared(make_kb(), tmp_path, RECIPE)
    found = baseline_heads(base, anchors, heads)
    assert set(found) == {"class_name", "image_centred"}
    by_name = fit(base, anchors["class_name"], RECIPE).heads
    by_images = fit(base, anchors["llm_centers"], replace(RECIPE, align="image")).heads
    for name, expected in (("class_name", by_name), ("image_centred", by_images)):
        for modality, weight in expected.weights.items():
            np.testing.assert_array_equal(found[name].weights[modality], weight)
        assert found[name].metadata["settings"] == expected.metadata["settings"]
    assert found["class_name"].metadata["settings"] == asdict(RECIPE)


def test_an_image_centred_run_stands_beside_a_text_centred_one(make_kb: MakeKb, tmp_path: Path) -> None:
    """The other alignment is the baseline, whichever the run has."""
    base, anchors, heads = _prepared(make_kb(), tmp_path, replace(RECIPE, align="image"))
    found = baseline_heads(base, anchors, heads)
    assert set(found) == {"class_name", "text_centred"}
    assert found["text_centred"].metadata["settings"]["align"] == "text"


def test_what_the_knowledge_base_does_not_allow_is_absent(make_kb: MakeKb, tmp_path: Path) -> None:
    """Without train images nothing is drawn to images; without controls, nothing to names."""
    base, anchors, heads = _prepared(make_kb(), tmp_path, replace(RECIPE, modalities=("audio", "text")))
    del anchors["class_name"]
    assert baseline_heads(base, anchors, heads) == {}


def test_their_balance_stands_behind_the_runs_own(make_kb: MakeKb, tmp_path: Path) -> None:
    """Rows of each space, the run's first, with the numbers of its own test vectors; all else unchanged."""
    base, anchors, heads = _prepared(make_kb(), tmp_path, RECIPE)
    metrics = evaluate(base.folder, tmp_path, QUICK)
    assert list(dict.fromkeys(row["anchors"] for row in metrics["balance"])) == [
        "aligned",
        "zero_shot",
        "class_name",
        "image_centred",
    ]
    frozen, _ = load_samples(base, "samples")
    for name, trained in {"aligned": heads, **baseline_heads(base, anchors, heads)}.items():
        test = {
            m: replace(s, vectors_ND=trained.map(m, s.vectors_ND)).split("test") for m, s in frozen.items()
        }
        expected = balance_rows(test, retrieval_rows(test, resamples=1, seed=0)[0], anchors=name)
        assert [row for row in metrics["balance"] if row["anchors"] == name] == expected
    without = measure(base, anchors["llm_centers"], heads, replace(QUICK, baselines=False)).metrics
    assert without["balance"] == [row for row in metrics["balance"] if row["anchors"] == "aligned"]
    del without["balance"], metrics["balance"]
    assert without == metrics


@pytest.mark.parametrize("baselines", [True, False])
def test_without_heads_there_are_none(baselines: bool, make_kb: MakeKb) -> None:
    """Nothing was trained, so nothing is trained beside it."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    base = open_kb(kb)
    rows = measure(base, load_centers(base), None, replace(QUICK, baselines=baselines)).metrics["balance"]
    assert {row["anchors"] for row in rows} == {"zero_shot"}
