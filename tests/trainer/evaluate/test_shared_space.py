"""Nothing compares samples with texts as they are stored: means are taken off on every way to a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.align import train as training
from trainer.align.heads import Heads
from trainer.align.train import fit
from trainer.evaluate.measure import measure
from trainer.evaluate.trainings import given as loading
from trainer.inputs import KnowledgeBase, load_controls, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import Centers, SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
RECIPE = Train(epochs=5, batch_size=48)
QUICK = Evaluate(bootstrap=20, few_shot=(), probe=False, baselines=False, stacking_folds=2, repeats=0)


def _localized(make_kb: MakeKb, **options: Any) -> KnowledgeBase:
    kb = make_kb(**options)
    localize(kb, Localize(k=5))
    return open_kb(kb)


def _numbers(rows: list[dict[str, Any]], model: str | None = None) -> dict[tuple[Any, ...], float]:
    """Every number of some rows by its place."""
    return {
        (number, key): value
        for number, row in enumerate(r for r in rows if model in (None, r["model"]))
        for key, value in row.items()
        if isinstance(value, float)
    }


def _shifted(texts: Centers) -> Centers:
    return replace(texts, vectors_ND=texts.vectors_ND + np.float32(0.2))


def test_texts_that_all_move_alike_change_nothing(make_kb: MakeKb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Centers and each control lose a mean of their own: accuracy, sweeps and calibration are as before."""
    base = _localized(make_kb, noise=0.5)
    centers = load_centers(base)
    heads = fit(base, centers, RECIPE).heads
    before = measure(base, centers, heads, QUICK).metrics
    monkeypatch.setattr(
        loading, "load_controls", lambda base: {n: _shifted(c) for n, c in load_controls(base).items()}
    )
    after = measure(base, _shifted(centers), heads, QUICK).metrics
    for name in ("recognition", "sweeps", "calibration"):
        found = _numbers(before[name], "aligned")
        assert len(found) > 20
        assert _numbers(after[name], "aligned") == pytest.approx(found, abs=2e-3)
    assert {row["anchors"] for row in before["recognition"]} > {"class_name", "permuted", "templates"}
    moved = replace(heads, space=replace(heads.space, mean_T=None))
    spoilt = measure(base, _shifted(centers), moved, QUICK).metrics
    assert _numbers(spoilt["recognition"]) != pytest.approx(_numbers(before["recognition"]), abs=0.05)


def test_features_that_all_move_alike_change_nothing(
    make_kb: MakeKb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads see features without their mean: a modality whose encoder adds a constant is placed as before."""
    base = _localized(make_kb)
    centers = load_centers(base)
    sets = load_samples(base, "samples")[0]
    before = fit(base, centers, RECIPE).heads

    def moved(kb: KnowledgeBase, role: str) -> tuple[dict[str, SampleSet], dict[str, int]]:
        found, missing = load_samples(kb, role)
        audio = found["audio"]
        return {**found, "audio": replace(audio, vectors_ND=audio.vectors_ND + np.float32(0.5))}, missing

    monkeypatch.setattr(training, "load_samples", moved)
    after = fit(base, centers, RECIPE).heads
    x_ND = sets["audio"].vectors_ND
    placed = before.map("audio", x_ND)
    np.testing.assert_allclose(after.map("audio", x_ND + np.float32(0.5)), placed, atol=5e-3)
    assert np.abs(after.map("audio", x_ND) - placed).max() > 0.1


def test_mapped_train_samples_have_no_mean_but_that_of_unit_rows(make_kb: MakeKb) -> None:
    """Each modality's mean is that of its mapped train rows, in float64; text without a head has one."""
    base = _localized(make_kb)
    sets = load_samples(base, "samples")[0]
    for text_head in (True, False):
        heads = fit(base, load_centers(base), replace(RECIPE, text_head=text_head)).heads
        assert sorted(heads.means) == ["audio", "image", "point", "text"]
        assert ("text" in heads.weights) == text_head
        for modality, mean_T in heads.means.items():
            rows_NT = _placed(heads, modality, sets[modality].split("train").vectors_ND)
            np.testing.assert_allclose(mean_T, rows_NT.mean(axis=0), atol=1e-5)
            off = unit_rows((rows_NT - mean_T).astype(np.float32))
            found = heads.map(modality, sets[modality].split("train").vectors_ND)
            np.testing.assert_allclose(found, off, atol=1e-4)


def _placed(heads: Heads, modality: str, x_ND: np.ndarray) -> np.ndarray:
    """W x + b, or the projected text, at unit length, in float64."""
    basis_RT = heads.space.basis_RT
    assert basis_RT is not None
    if modality in heads.weights:
        rows = x_ND.astype(np.float64) @ heads.weights[modality].T + heads.biases[modality]
    else:
        rows = x_ND.astype(np.float64) @ basis_RT.T @ basis_RT
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
