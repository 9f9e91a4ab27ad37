"""The linear probe, against scikit-learn's LogisticRegression."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.evaluate.probe import STRENGTHS, fit_probe, fit_probes, logistic_regression, probe_rows
from trainer.records import SampleSet


def _samples(n: int, *, dim: int = 8, categories: int = 4, noise: float = 1.5, seed: int = 0) -> SampleSet:
    rng = np.random.default_rng(seed)
    category_N = np.arange(n) % categories
    means_CD = np.random.default_rng(99).normal(size=(categories, dim))
    x_ND = means_CD[category_N] + noise * rng.normal(size=(n, dim))
    return SampleSet(
        modality="audio",
        sample_ids=tuple(f"s{i}" for i in range(n)),
        splits_N=rng.choice(["train", "val", "test"], size=n),
        category_N=category_N,
        object_N=np.full(n, -1),
        vectors_ND=x_ND.astype(np.float32),
    )


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("categories", [2, 5])
def test_the_weights_are_those_of_scikit_learn(strength: float, categories: int) -> None:
    """The same objective has the same minimum; for two categories the softmax form is still used."""
    rng = np.random.default_rng(categories)
    x_ND, label_N = rng.normal(size=(120, 6)), np.arange(120) % categories
    x_ND[:, 0] += label_N
    start = np.zeros((categories, 6)), np.zeros(categories)
    weight_KD, bias_K = logistic_regression(x_ND, label_N, strength, start)
    if categories == 2:  # scikit-learn has one row here, the difference: half its penalty
        reference = LogisticRegression(C=2 * strength, tol=1e-8, max_iter=5000).fit(x_ND, label_N)
        assert weight_KD[1] - weight_KD[0] == pytest.approx(reference.coef_[0], abs=1e-4)
        return
    reference = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(x_ND, label_N)
    assert weight_KD == pytest.approx(reference.coef_, abs=1e-4)
    assert bias_K - bias_K.mean() == pytest.approx(
        reference.intercept_ - reference.intercept_.mean(), abs=1e-4
    )


@pytest.mark.parametrize("dim", [8, 300])
def test_probabilities_and_choice_are_those_of_scikit_learn(dim: int) -> None:
    """Standardised, C by val accuracy; also where there are more features than samples."""
    samples = _samples(240, dim=dim, noise=3.0)
    train, val, test = (samples.split(name) for name in ("train", "val", "test"))
    probe = fit_probe(train, val)
    assert probe is not None
    scaler = StandardScaler().fit(train.vectors_ND.astype(np.float64))
    models = [
        LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(
            scaler.transform(train.vectors_ND.astype(np.float64)), train.category_N
        )
        for c in STRENGTHS
    ]
    x_val, x_test = (scaler.transform(s.vectors_ND.astype(np.float64)) for s in (val, test))
    shares = [model.score(x_val, val.category_N) for model in models]
    assert probe.strength == STRENGTHS[int(np.argmax(shares))]
    expected = models[int(np.argmax(shares))].predict_log_proba(x_test)
    assert probe.scores(test.vectors_ND) == pytest.approx(expected, abs=2e-3)
    assert (probe.predict(test.vectors_ND, 1)[:, 0] == expected.argmax(axis=1)).all()


def test_what_cannot_be_fitted_or_chosen() -> None:
    """One category teaches nothing; without val samples C is 1; a feature that never changes is harmless."""
    samples = _samples(60)
    assert fit_probe(samples.take(samples.category_N == 1), samples) is None
    flat = samples.take(np.arange(60))
    flat.vectors_ND[:, 0] = 3.0
    probe = fit_probe(flat, flat.take(np.zeros(60, dtype=bool)))
    assert probe is not None
    assert probe.strength == 1.0
    assert np.isfinite(probe.scores(flat.vectors_ND)).all()


def test_rows_are_recognition_rows_with_a_lead() -> None:
    """Counted on the seen test samples; beside the LLM centers' answers to the same samples."""
    samples = _samples(300)
    seen_C = np.array([True, True, True, True, False])
    test = samples.split("test")
    never = RecognitionOutcomes(
        "seen", "llm_centers", test, np.zeros(len(test), int), test.category_N < 0, test.category_N < 0
    )
    probes = fit_probes({"audio": samples})
    (row,) = probe_rows({"audio": samples}, probes, seen_C, [never], resamples=100, seed=0)
    probe = fit_probe(samples.split("train"), samples.split("val"))
    assert probe is not None
    top1 = float(np.mean(probe.predict(test.vectors_ND, 1)[:, 0] == test.category_N))
    assert (row["split"], row["anchors"], row["k"], row["model"]) == ("seen", "linear_probe", 0, "probe")
    assert (row["top1"], row["lead"], row["n"]) == (top1, pytest.approx(-top1), len(test))
    assert row["n_train"] == len(samples.split("train"))
    assert 0.25 < row["map"] <= 1
    (bare,) = probe_rows({"audio": samples}, probes, seen_C, [], resamples=100, seed=0)
    assert "lead" not in bare
