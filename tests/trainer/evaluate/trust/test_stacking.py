"""Calibrated stacking against loops in float64, and what may and may not influence its constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import iqr, logistic

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.heads import Heads, load_heads
from trainer.align.train import fit, train
from trainer.evaluate.measure import measure
from trainer.evaluate.trust.answers import centers_by_model
from trainer.evaluate.trust.stacking import (
    Rivalry,
    bandwidth,
    best_constant,
    draw_folds,
    smoothed_harmonic,
)
from trainer.inputs import load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers, read_centers
from trainer.localize.choose import choose_centers, localize
from trainer.records import Centers
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
RECIPE = Train(epochs=12, batch_size=48, learning_rate=0.02)
SETTINGS = Evaluate(
    bootstrap=50, few_shot=(), sweeps=False, probe=False, baselines=False, stacking_folds=3, repeats=0, seed=2
)


def _harmonic(a: float, b: float) -> float:
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def _rivalry(seed: int, n: int = 60) -> Rivalry:
    """Margins with many equal ones; two thirds of the samples are of trained categories."""
    rng = np.random.default_rng(seed)
    is_trained_N = np.arange(n) < 40
    return Rivalry(
        margin_N=np.where(is_trained_N, 0.25, 0.05) + rng.normal(0, 0.15, n).round(2),
        trained_hit_N=is_trained_N & (rng.random(n) < 0.8),
        other_hit_N=~is_trained_N & (rng.random(n) < 0.7),
        is_trained_N=is_trained_N,
    )


def _tried(rivalry: Rivalry, constant: float, width: float) -> float:
    """The harmonic mean with one constant, sample by sample."""
    hits: dict[bool, list[float]] = {True: [], False: []}
    for i, margin in enumerate(rivalry.margin_N.tolist()):
        share = float(constant > margin)
        if width > 0:
            share = logistic.cdf(constant, loc=margin, scale=width * np.sqrt(3) / np.pi)
        hit = share * rivalry.other_hit_N[i] + (1 - share) * rivalry.trained_hit_N[i]
        hits[bool(rivalry.is_trained_N[i])].append(hit)
    return _harmonic(float(np.mean(hits[True])), float(np.mean(hits[False])))


@pytest.mark.parametrize("seed", range(6))
def test_the_constant_is_the_best_of_the_smoothed_curve(seed: int) -> None:
    """No constant of a grid, tried sample by sample with SciPy's curve, is better; it gains."""
    rivalry = _rivalry(seed)
    width = bandwidth(rivalry)
    spread = min(np.std(rivalry.margin_N), iqr(rivalry.margin_N) / 1.34)
    assert width == pytest.approx(0.9 * spread * 20**-0.2)
    constant, harmonic = best_constant(rivalry)
    assert constant > 0
    assert harmonic == pytest.approx(_tried(rivalry, constant, 0.0))
    assert harmonic > _tried(rivalry, 0.0, 0.0)
    grid = np.linspace(0, rivalry.margin_N.max(), 200)
    best = max(_tried(rivalry, float(value), width) for value in grid)
    assert _tried(rivalry, constant, width) >= best - 1e-9


def test_the_curve_is_that_of_loops_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a width and without, at once or a few constants at a time."""
    rivalry, constants_G = _rivalry(9), np.linspace(-0.1, 0.7, 13)
    for width in (0.0, 0.04, 1e-9):
        expected = [_tried(rivalry, float(constant), width) for constant in constants_G]
        np.testing.assert_allclose(smoothed_harmonic(rivalry, constants_G, width), expected, atol=1e-12)
        with monkeypatch.context() as small:
            small.setattr("trainer.evaluate.trust.stacking._CELLS", 100)
            found_G = smoothed_harmonic(rivalry, constants_G, width)
        np.testing.assert_allclose(found_G, expected, atol=1e-12)


def test_equal_margins_have_no_width_and_still_a_constant() -> None:
    """Two clumps: the step between them is found without a curve."""
    rivalry = Rivalry(
        margin_N=np.array([0.5] * 9 + [0.1]),
        trained_hit_N=np.array([True] * 9 + [False]),
        other_hit_N=np.array([False] * 9 + [True]),
        is_trained_N=np.array([True] * 9 + [False]),
    )
    assert bandwidth(rivalry) == 0
    constant, harmonic = best_constant(rivalry)
    assert 0.1 < constant < 0.5
    assert harmonic == 1.0


def test_nothing_is_taken_off_where_nothing_is_gained() -> None:
    """Trained categories that never win wrongly, and samples that no constant changes."""
    right = Rivalry(
        margin_N=np.array([0.3, 0.4, -0.2, -0.1]),
        trained_hit_N=np.array([True, True, False, False]),
        other_hit_N=np.array([False, False, True, True]),
        is_trained_N=np.array([True, True, False, False]),
    )
    assert best_constant(right) == (0.0, 1.0)
    never = replace(right, margin_N=np.array([-0.3, -0.4, -0.2, -0.1]))
    assert best_constant(never) == (0.0, 0.0)


@pytest.mark.parametrize("trained", [1, 2, 3, 9, 18, 100])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.9])
def test_folds_hold_out_the_share_and_leave_two(trained: int, share: float) -> None:
    """Disjoint, at most half of the categories each, at least one; the same for the same seed."""
    known = np.arange(5, 5 + trained)
    found = draw_folds(known, share, 4, seed=3)
    assert [part.tolist() for part in found] == [
        part.tolist() for part in draw_folds(known, share, 4, seed=3)
    ]
    if trained < 3:
        assert found == []
        return
    held = np.concatenate(found)
    assert len(np.unique(held)) == len(held)
    assert set(held.tolist()) <= set(known.tolist())
    assert len(found) <= 4
    for part in found:
        assert 1 <= len(part) <= max(1, trained // 2)
        assert trained - len(part) >= 2
    if trained == 18 and share == 0.25:
        assert sorted(len(part) for part in found) == [4, 4, 5, 5]
    assert draw_folds(known, share, 0, seed=3) == []


def _scores(x_ND: np.ndarray, centers: Centers) -> np.ndarray:
    """The nearest center's cosine of every category, by loops."""
    scores_NC = np.full((len(x_ND), len(centers.categories)), -np.inf)
    for n, x_D in enumerate(x_ND.astype(np.float64)):
        for category, z_D in zip(centers.category_N, centers.vectors_ND.astype(np.float64), strict=True):
            scores_NC[n, category] = max(scores_NC[n, category], round(float(x_D @ z_D), 9))
    return scores_NC


def test_rows_are_those_of_doing_it_by_hand(make_kb: MakeKb, tmp_path: Path) -> None:
    """Folds trained and scored by loops; the constant of both, and what it changes on test samples."""
    kb = make_kb(noise=0.4, objects=8)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, RECIPE)
    base, heads = open_kb(kb), load_heads(tmp_path)
    centers, seen_C = load_centers(base), seen_categories(base)
    rows = {
        (row["modality"], row["model"]): row
        for row in measure(base, centers, heads, SETTINGS).metrics["stacking"]
    }
    assert {model for modality, model in rows if modality == "image"} == {"zero_shot", "aligned", "mean"}
    assert {model for modality, model in rows if modality in ("audio", "point")} == {"aligned"}
    frozen, untrained = (load_samples(base, role)[0]["image"] for role in ("samples", "zero_shot"))
    trained = np.flatnonzero(seen_C)

    def of_model(heads: Heads, known: Centers, model: str, shown_N: np.ndarray) -> np.ndarray:
        parts, texts = [], centers_by_model(known, heads)
        if model in ("zero_shot", "mean"):
            parts.append(_scores(untrained.vectors_ND[shown_N], texts["zero_shot"]))
        if model in ("aligned", "mean"):
            parts.append(_scores(heads.map("image", frozen.vectors_ND[shown_N]), texts["aligned"]))
        return sum(parts) / len(parts)

    folds = draw_folds(trained, 3 / 12, 3, seed=2)
    assert len(folds) == 3
    cells: dict[str, list[tuple[bool, float, bool, bool]]] = {m: [] for m in ("zero_shot", "aligned", "mean")}
    for held in folds:
        names = {base.categories[c] for c in held}
        kept = [r for r in base.samples if not (r["split"] == "train" and r["category_id"] in names)]
        fold = replace(base, samples=tuple(kept))
        known = read_centers(fold, choose_centers(fold, Localize(k=4))[0])
        fitted = fit(fold, known, RECIPE).heads
        shown_N = np.flatnonzero((frozen.splits_N == "val") & seen_C[frozen.category_N])
        for model, found in cells.items():
            for i, score_C in zip(shown_N, of_model(fitted, known, model, shown_N), strict=True):
                own = int(frozen.category_N[i])
                kept_C = [c for c in trained if c not in held]
                ours, theirs = max(kept_C, key=lambda c: score_C[c]), max(held, key=lambda c: score_C[c])
                margin = float(score_C[ours] - score_C[theirs])
                found.append((own not in held, margin, ours == own, theirs == own))
    test_N = np.flatnonzero((frozen.splits_N == "test") & (frozen.category_N >= 0))
    is_seen_N = seen_C[frozen.category_N[test_N]]
    for model, found in cells.items():
        row = rows["image", model]
        is_trained, margin, ours, theirs = (np.array(column) for column in zip(*found, strict=True))
        constant, harmonic = best_constant(Rivalry(margin, ours, theirs, is_trained))
        assert (row["constant"], row["fit_harmonic"]) == pytest.approx((constant, harmonic), abs=1e-4)
        assert (row["folds"], row["n_fit_trained"] + row["n_fit_held_out"]) == (3, len(found))
        score_NC = of_model(heads, centers, model, test_N)
        for suffix, value in (("", 0.0), ("_stacked", row["constant"])):
            hit_N = (score_NC - value * seen_C).argmax(axis=1) == frozen.category_N[test_N]
            both = float(hit_N[is_seen_N].mean()), float(hit_N[~is_seen_N].mean())
            assert (row[f"seen{suffix}"], row[f"unseen{suffix}"]) == pytest.approx(both)
            assert row[f"harmonic{suffix}"] == pytest.approx(_harmonic(*both))
            low, high = row[f"harmonic{suffix}_low"], row[f"harmonic{suffix}_high"]
            assert low - 0.1 <= row[f"harmonic{suffix}"] <= high + 0.1


def test_samples_of_untrained_categories_have_no_say(make_kb: MakeKb, tmp_path: Path) -> None:
    """Without them, the constants are the same; only what is measured on them is gone."""
    kb = make_kb(noise=0.4)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, RECIPE)
    base, heads = open_kb(kb), load_heads(tmp_path)
    centers, seen_C = load_centers(base), seen_categories(base)
    seen = {base.categories[c] for c in np.flatnonzero(seen_C)}
    fewer = replace(base, samples=tuple(row for row in base.samples if row["category_id"] in seen))
    whole, blind = (measure(each, centers, heads, SETTINGS).metrics["stacking"] for each in (base, fewer))
    measured = ("seen", "unseen", "harmonic", "n_unseen")
    assert len(whole) == len(blind) > 0
    for one, other in zip(whole, blind, strict=True):
        assert other["unseen"] is None
        assert other["n_unseen"] == 0
        for key, value in one.items():
            if not key.startswith(measured):
                assert other[key] == value, key
    assert any(row["constant"] > 0 for row in whole)


def _without(kb: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    rows = [changed for row in read_rows(kb / "samples.parquet") if (changed := change(row)) is not None]
    write_table(kb / "samples.parquet", rows, SAMPLES)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("no val", lambda row: {**row, "split": "test"} if row["split"] == "val" else row),
        ("all trained", lambda row: {**row, "split": "train"} if row["object_id"][-1] in "01" else row),
        ("two trained", lambda row: row if row["category_id"] < "m1" else {**row, "split": "test"}),
    ],
)
def test_where_no_constant_can_be_found_there_is_no_row(
    make_kb: MakeKb, tmp_path: Path, case: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """No val sample, no untrained category, or too few trained ones: no row, and the rest is measured."""
    kb = make_kb()
    _without(kb, change)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, Train(epochs=1, batch_size=48))
    base = open_kb(kb)
    metrics = measure(base, load_centers(base), load_heads(tmp_path), SETTINGS).metrics
    assert metrics["stacking"] == [], case
    assert metrics["recognition"], case
    splits = {row["split"] for row in metrics["recognition"]}
    assert ("seen_among_all" in splits) == (case != "all trained")


def test_switched_off_it_costs_nothing(make_kb: MakeKb, tmp_path: Path) -> None:
    """`stacking_folds = 0`: no training, no row, calibration without a constant."""
    kb = make_kb()
    localize(kb, Localize(k=4))
    train(kb, tmp_path, Train(epochs=1, batch_size=48))
    base = open_kb(kb)
    off = measure(base, load_centers(base), load_heads(tmp_path), replace(SETTINGS, stacking_folds=0)).metrics
    assert off["stacking"] == []
    assert off["calibration"]
