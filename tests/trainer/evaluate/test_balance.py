"""Balance measures against scikit-learn, SciPy and plain loops; baselines against training by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.linear_model import Ridge
from sklearn.metrics import silhouette_score

from trainer.align.heads import Heads, load_heads
from trainer.align.train import fit, train
from trainer.evaluate import balance as module
from trainer.evaluate.balance import (
    alignment,
    balance_rows,
    baseline_heads,
    modality_gaps,
    modality_probe,
    modality_probe_mlp,
    silhouette,
    uniformity,
)
from trainer.evaluate.measure import evaluate, measure
from trainer.evaluate.retrieval import retrieval_rows
from trainer.evaluate.tasks import AnchorSet, anchor_sets
from trainer.inputs import KnowledgeBase, load_controls, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import Floats, SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
QUICK = Evaluate(bootstrap=1, few_shot=(), probe=False, sweeps=False, stacking_folds=2, repeats=1)
RECIPE = Train(epochs=3, batch_size=48, learning_rate=0.02)


def _space(n: int = 90, dim: int = 7) -> tuple[Floats, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    modality_N = rng.integers(0, 3, size=n)
    shift_MD = 0.6 * rng.normal(size=(3, dim))
    x_ND = unit_rows((rng.normal(size=(n, dim)) + shift_MD[modality_N]).astype(np.float32))
    return x_ND, modality_N, rng.integers(-1, 20, size=n)


def test_gaps_are_distances_of_means() -> None:
    """One gap per pair of modalities, against NumPy in float64."""
    x_ND, modality_N, _ = _space()
    means = [x_ND[modality_N == m].astype(np.float64).mean(axis=0) for m in range(3)]
    expected = [np.linalg.norm(a - b) for a, b in combinations(means, 2)]
    np.testing.assert_allclose(modality_gaps(x_ND, modality_N), expected, rtol=1e-12)


def test_alignment_is_the_mean_over_true_pairs() -> None:
    """Only pairs of one object in two modalities count."""
    x_ND, modality_N, object_N = _space()
    distances = [
        float(np.sum((x_ND[i].astype(np.float64) - x_ND[j]) ** 2))
        for i, j in combinations(range(len(x_ND)), 2)
        if object_N[i] == object_N[j] >= 0 and modality_N[i] != modality_N[j]
    ]
    assert alignment(x_ND, modality_N, object_N) == pytest.approx(np.mean(distances), rel=1e-9)
    assert alignment(x_ND, modality_N, np.full(len(x_ND), -1)) is None
    assert alignment(x_ND, np.zeros_like(modality_N), object_N) is None


def test_uniformity_is_that_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """log E exp(-2 d²) over all pairs, in one block and in many."""
    x_ND, _, _ = _space()
    expected = np.log(np.mean(np.exp(-2 * pdist(x_ND.astype(np.float64), "sqeuclidean"))))
    assert uniformity(x_ND) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    assert uniformity(x_ND) == pytest.approx(expected, rel=1e-9)
    assert uniformity(x_ND[:1]) is None


@pytest.mark.parametrize("rows", [7, 1024])
def test_silhouette_is_that_of_scikit_learn(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean silhouette, with a label of a single sample and with duplicates."""
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows)
    x_ND, label_N, _ = _space()
    label_N[4] = 9
    x_ND[10:14] = x_ND[10]
    expected = silhouette_score(x_ND.astype(np.float64), label_N)
    assert silhouette(x_ND, label_N) == pytest.approx(expected, abs=1e-6)


def test_silhouette_needs_two_labels_and_a_pair() -> None:
    """One label, or a label for every sample, has no silhouette; all samples in one point have 0."""
    x_ND, label_N, _ = _space()
    assert silhouette(x_ND, np.zeros_like(label_N)) is None
    assert silhouette(x_ND, np.arange(len(x_ND))) is None
    assert silhouette(np.ones((6, 3), dtype=np.float32), np.array([0, 0, 0, 1, 1, 1])) == 0


def test_the_probe_is_a_ridge_classifier_over_folds_of_objects() -> None:
    """Guesses agree with scikit-learn's ridge on one-hot targets, trained without the fold's objects."""
    x_ND, modality_N, object_N = _space(200)
    fold_N = np.where(object_N < 0, np.arange(200), object_N) % 5
    right = 0
    for fold in range(5):
        test_N = fold_N == fold
        fit = Ridge(alpha=1.0).fit(x_ND[~test_N].astype(np.float64), np.eye(3)[modality_N[~test_N]])
        right += int(
            (fit.predict(x_ND[test_N].astype(np.float64)).argmax(axis=1) == modality_N[test_N]).sum()
        )
    assert modality_probe(x_ND, modality_N, object_N) == pytest.approx(right / 200)


def _set(modality: str, x_ND: Floats) -> SampleSet:
    n = len(x_ND)
    return SampleSet(
        modality, tuple(f"{i:03}" for i in range(n)), np.full(n, "test"), np.arange(n) % 4, np.arange(n), x_ND
    )


def test_a_balanced_space_measures_so() -> None:
    """Equal vectors in both modalities: no gap, perfect alignment; shifted ones are separable."""
    x_ND = _space(100)[0]
    shifted_ND = unit_rows(x_ND + np.float32(3))
    values = {
        name: {row["measure"]: row["value"] for row in balance_rows(sets, [], anchors="aligned")}
        for name, sets in {
            "same": {"audio": _set("audio", x_ND), "point": _set("point", x_ND)},
            "apart": {"audio": _set("audio", x_ND), "point": _set("point", shifted_ND)},
        }.items()
    }
    assert values["same"]["modality_gap_max"] == 0
    assert values["same"]["alignment"] == 0
    assert values["same"]["modality_probe_accuracy"] <= 0.5
    assert values["apart"]["modality_probe_accuracy"] > 0.9
    assert values["apart"]["modality_gap_mean"] > 0.5
    assert values["apart"]["silhouette_by_modality"] > values["same"]["silhouette_by_modality"]


def test_retrieval_is_summed_up_per_level() -> None:
    """Mean, spread and worst pair of recall@10."""
    x_ND = _space(20)[0]
    retrieval = [{"level": "category", "r10": 0.2}, {"level": "category", "r10": 0.6}]
    rows = balance_rows({"a": _set("a", x_ND), "b": _set("b", x_ND)}, retrieval, anchors="aligned")
    values = {row["measure"]: row["value"] for row in rows}
    assert values["category_r10_mean"] == pytest.approx(0.4)
    assert values["category_r10_spread"] == pytest.approx(0.2)
    assert values["category_r10_worst"] == 0.2
    assert "object_r10_mean" not in values
    assert {row["anchors"] for row in rows} == {"aligned"}


def test_one_modality_has_no_balance() -> None:
    """With fewer than two modalities there is nothing to balance."""
    assert balance_rows({"a": _set("a", _space(20)[0])}, [], anchors="aligned") == []


def _prepared(kb: Path, run: Path, recipe: Train) -> tuple[KnowledgeBase, dict[str, AnchorSet], Heads]:
    localize(kb, Localize(k=5))
    train(kb, run, recipe)
    base = open_kb(kb)
    return base, anchor_sets(load_centers(base), load_controls(base), seed=0), load_heads(run)


def test_each_is_the_runs_recipe_but_for_its_alignment(make_kb: MakeKb, tmp_path: Path) -> None:
    """Heads equal to the bit those of a run with names as centers, and of one with `align = "image"`."""
    base, anchors, heads = _prepared(make_kb(), tmp_path, RECIPE)
    found = baseline_heads(base, anchors, heads)
    assert set(found) == {"class_name", "image_centred"}
    by_name = fit(base, anchors["class_name"].texts, RECIPE).heads
    by_images = fit(base, anchors["llm_centers"].texts, replace(RECIPE, align="image")).heads
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
    """Without train images no heads are aligned with images; without controls, none with names."""
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
    without = measure(base, anchors["llm_centers"].texts, heads, replace(QUICK, baselines=False)).metrics
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


def test_the_hidden_layer_sees_what_no_plane_separates() -> None:
    """Modalities on alternate quadrants: the linear probe is at chance, the network is not."""
    rng = np.random.default_rng(0)
    x_ND = unit_rows(rng.normal(size=(600, 2)).astype(np.float32))
    modality_N = (x_ND[:, 0] * x_ND[:, 1] > 0).astype(np.int64)
    alone_N = np.full(600, -1)
    assert modality_probe(x_ND, modality_N, alone_N) < 0.65
    assert modality_probe_mlp(x_ND, modality_N, alone_N) > 0.9
    shuffled_N = rng.permutation(modality_N)
    assert modality_probe_mlp(x_ND, shuffled_N, alone_N) < 0.6
    assert modality_probe_mlp(x_ND, modality_N, alone_N) == modality_probe_mlp(x_ND, modality_N, alone_N)
