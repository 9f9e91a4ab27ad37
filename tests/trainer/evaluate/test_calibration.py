"""Fitted temperatures and what they improve, against scikit-learn, SciPy and counting by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss as sklearn_log_loss

from trainer.evaluate import calibration
from trainer.evaluate.calibration import (
    BINS,
    calibration_error,
    calibration_rows,
    fit_temperature,
    log_loss,
    probabilities,
)
from trainer.evaluate.predictions import predict_tasks
from trainer.evaluate.tasks import CENTERS, AnchorSet, Task, tasks
from trainer.records import Centers, Ints, SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Scorer

Doubles = npt.NDArray[np.float64]


def _noisy(seed: int, n: int = 300, categories: int = 7, spread: float = 0.1) -> tuple[Doubles, Ints]:
    """Scores whose own category is a little higher than the others, mostly."""
    rng = np.random.default_rng(seed)
    label_N = rng.integers(0, categories, n)
    scores_NC = spread * rng.normal(size=(n, categories))
    scores_NC[np.arange(n), label_N] += spread * rng.random(n) * 3
    return scores_NC, label_N


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 30.0])
def test_losses_and_probabilities_agree_with_scikit_learn_and_scipy(temperature: float) -> None:
    """The softmax over the temperature, and the mean log-loss of the labels under it."""
    scores_NC, label_N = _noisy(0)
    expected_NC = softmax(scores_NC / temperature, axis=1)
    np.testing.assert_allclose(probabilities(scores_NC, temperature), expected_NC, rtol=1e-12)
    expected = -np.mean(np.log(expected_NC[np.arange(len(label_N)), label_N]))
    assert log_loss(scores_NC, label_N, temperature) == pytest.approx(expected, rel=1e-12)
    if temperature > 0.1:  # scikit-learn clips what is surer
        expected = sklearn_log_loss(label_N, expected_NC, labels=range(7))
        assert log_loss(scores_NC, label_N, temperature) == pytest.approx(expected, rel=1e-9)


def test_a_category_without_a_score_has_probability_zero() -> None:
    """Minus infinity, as categories without centers score, gets nothing; the others share the whole."""
    shares_NC = probabilities(np.array([[0.5, -np.inf, 0.5], [-np.inf, 0.1, -np.inf]]), 0.1)
    assert shares_NC.tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [0.002, 0.1, 40.0])
def test_the_temperature_is_the_one_that_scipy_finds(seed: int, spread: float) -> None:
    """A bounded search for the least loss, over its logarithm, ends at the same temperature."""
    scores_NC, label_N = _noisy(seed, spread=spread)
    found = minimize_scalar(
        lambda log_t: _loss(scores_NC, label_N, float(np.exp(log_t))),
        bounds=(-10, 8),
        method="bounded",
        options={"xatol": 1e-9},
    )
    temperature = fit_temperature(scores_NC, label_N)
    assert temperature == pytest.approx(float(np.exp(found.x)), rel=1e-5)


def _loss(scores_NC: Doubles, label_N: Ints, temperature: float) -> float:
    """The loss by SciPy's softmax, with nothing clipped."""
    shares_N = softmax(scores_NC / temperature, axis=1)[np.arange(len(label_N)), label_N]
    return float(-np.mean(np.log(np.maximum(shares_N, 1e-300))))


def test_a_planted_temperature_is_found_again() -> None:
    """Labels drawn from the softmax over a temperature lead back to it."""
    rng = np.random.default_rng(5)
    scores_NC = rng.normal(size=(20_000, 5)) * 0.1
    shares_NC = softmax(scores_NC / 0.07, axis=1)
    label_N = (shares_NC.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    temperature = fit_temperature(scores_NC, label_N)
    assert temperature == pytest.approx(0.07, rel=0.05)
    assert calibration_error(scores_NC, label_N, 0.07) < 0.02 < calibration_error(scores_NC, label_N, 1.0)


def test_no_temperature_fits_what_is_all_right_or_no_better_than_chance() -> None:
    """The best would be 0, or infinite: there is none. One mistake by the smallest step is enough."""
    scores_NC = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    assert fit_temperature(scores_NC, np.array([0, 1, 0])) is None
    assert fit_temperature(scores_NC, np.array([1, 0, 0])) is None
    assert fit_temperature(np.zeros((2, 3)), np.array([0, 1])) is None
    nearly = np.array([[0.9, 0.1], [0.5, 0.5 + 1e-9]])
    temperature = fit_temperature(nearly, np.array([0, 0]))
    assert temperature is not None
    assert 0 < temperature < 0.1


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few samples at a time give what all at once give."""
    scores_NC, label_N = _noisy(6)
    whole = [f(scores_NC, label_N, 0.05) for f in (log_loss, calibration_error)]
    temperature = fit_temperature(scores_NC, label_N)
    monkeypatch.setattr(calibration, "_CELLS", 40)
    assert [f(scores_NC, label_N, 0.05) for f in (log_loss, calibration_error)] == pytest.approx(whole)
    in_blocks = fit_temperature(scores_NC, label_N)
    assert in_blocks == pytest.approx(temperature)
    monkeypatch.setattr(calibration, "_KEPT", 0)
    assert fit_temperature(scores_NC, label_N) == in_blocks


def _error_by_hand(scores_NC: Doubles, label_N: Ints, temperature: float) -> float:
    bins: dict[int, list[tuple[bool, float]]] = {}
    for scores_C, label in zip(scores_NC, label_N.tolist(), strict=True):
        shares = softmax(scores_C / temperature)
        sure = float(shares.max())
        (place,) = [b for b in range(BINS) if b / BINS < sure <= (b + 1) / BINS]
        bins.setdefault(place, []).append((int(shares.argmax()) == label, sure))
    return sum(
        float(abs(np.mean([hit for hit, _ in each]) - np.mean([sure for _, sure in each]))) * len(each)
        for each in bins.values()
    ) / len(label_N)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_the_calibration_error_agrees_with_counting_by_hand(temperature: float) -> None:
    """Fifteen bins, each with its share of right answers and its mean probability."""
    scores_NC, label_N = _noisy(7)
    expected = _error_by_hand(scores_NC, label_N, temperature)
    assert calibration_error(scores_NC, label_N, temperature) == pytest.approx(expected)


def test_a_certain_sample_falls_into_the_last_bin() -> None:
    """Probability 1, right and wrong: errors 0 and 1."""
    sure = np.array([[1000.0, 0.0]])
    assert calibration_error(sure, np.array([0]), 1.0) == 0
    assert calibration_error(sure, np.array([1]), 1.0) == 1


def test_a_bin_holds_its_upper_edge() -> None:
    """A third and 0.28 lie both in (4/15, 5/15]: the errors of the two are added before their size counts."""
    thirds, lower = np.array([0.0, 0.0, 0.0, -1000.0]), np.log([0.28, 0.24, 0.24, 0.24])
    error = calibration_error(np.stack([thirds, lower]), np.array([1, 0]), 1.0)
    assert error == pytest.approx(((1 - 0.28) - 1 / 3) / 2)


SEEN_C = np.array([True, True, True, False, True])


def _world(n: int = 400) -> tuple[SampleSet, Centers]:
    """Five categories, the third without a center; samples near their own centers, and unlabelled ones."""
    rng = np.random.default_rng(8)
    owner_M = np.array([0, 0, 1, 1, 1, 3, 4])
    centers_MD = unit_rows(rng.normal(size=(7, 8)).astype(np.float32))
    category_N = rng.integers(-1, 5, n)
    meaning = np.stack([centers_MD[owner_M == c].sum(axis=0) for c in range(5)] + [np.zeros(8)])
    x_ND = unit_rows((meaning[category_N] + rng.normal(size=(n, 8))).astype(np.float32))
    ids, splits_N = tuple(f"s{i}" for i in range(n)), rng.choice(["train", "val", "test"], n)
    samples = SampleSet("audio", ids, splits_N, category_N, np.full(n, -1), x_ND)
    return samples, Centers(tuple("abcde"), tuple(f"r{i}" for i in range(7)), owner_M, centers_MD)


def _by_hand(samples: SampleSet, centers: Centers, split: str, task: Task) -> tuple[Doubles, Ints]:
    """The nearest-center scores of a split's samples among a task's candidates that have a center."""
    among = [c for c in range(5) if task.candidates_C[c] and c in centers.category_N]
    rows, labels = [], []
    for x_D, category, own in zip(samples.vectors_ND, samples.category_N, samples.splits_N, strict=True):
        if own == split and category in among and task.shown_C[category]:
            cosine_M = centers.vectors_ND.astype(np.float64) @ x_D.astype(np.float64)
            rows.append([cosine_M[centers.category_N == c].max() for c in among])
            labels.append(among.index(category))
    return np.array(rows), np.array(labels)


def _calibrated(
    samples: SampleSet, centers: Centers, to_do: list[Task], scorer: Scorer = "nearest"
) -> list[dict[str, Any]]:
    asked = predict_tasks(samples, {CENTERS: AnchorSet(centers)}, to_do, scorer=scorer, sweeps=False)
    return calibration_rows(samples, centers, asked, model="aligned", scorer=scorer)


def test_rows_agree_with_fitting_by_hand() -> None:
    """Fitted on val among all, measured on test among the candidates; only what has a label and a center."""
    samples, centers = _world()
    to_do = tasks(SEEN_C, labels_used=True)
    rows = _calibrated(samples, centers, to_do)
    everything = Task("unseen", np.ones(5, bool), np.ones(5, bool))
    val = _by_hand(samples, centers, "val", everything)
    assert [row["split"] for row in rows] == ["seen", "unseen", "seen_among_all", "unseen_among_all"]
    for row, task in zip(rows, to_do, strict=True):
        test = _by_hand(samples, centers, "test", task)
        assert " ".join(row) == (
            "modality model split_fitted split scorer temperature n_fit n nll_before nll ece_before ece"
        )
        found = (row["modality"], row["model"], row["split_fitted"], row["scorer"])
        assert found == ("audio", "aligned", "val", "nearest")
        assert (row["n_fit"], row["n"]) == (len(val[1]), len(test[1]))
        assert row["temperature"] == pytest.approx(fit_temperature(*val), rel=1e-6)
        for name, temperature in (("_before", 1.0), ("", row["temperature"])):
            assert row[f"nll{name}"] == pytest.approx(_loss(*test, temperature), abs=1e-7)
            assert row[f"ece{name}"] == pytest.approx(_error_by_hand(*test, temperature), abs=1e-6)
    assert rows[0]["nll"] < rows[0]["nll_before"]


def test_the_constant_is_off_where_trained_and_untrained_categories_compete() -> None:
    """In the fit, and among all categories; among trained ones alone it would change nothing."""
    samples, centers = _world()
    to_do = tasks(SEEN_C, labels_used=True)
    asked = predict_tasks(samples, {CENTERS: AnchorSet(centers)}, to_do, scorer="nearest", sweeps=False)
    constant_C = np.where(SEEN_C, 0.05, 0.0)
    rows = calibration_rows(samples, centers, asked, model="aligned", scorer="nearest", constant_C=constant_C)
    val_NC, val_N = _by_hand(samples, centers, "val", Task("unseen", np.ones(5, bool), np.ones(5, bool)))
    centered_C = centers.counts() > 0
    temperature = fit_temperature(val_NC - constant_C[centered_C], val_N)
    assert temperature is not None
    for row, task in zip(rows, to_do, strict=True):
        assert row["temperature"] == pytest.approx(temperature, rel=1e-6)
        scores_NC, label_N = _by_hand(samples, centers, "test", task)
        if row["split"].endswith("_among_all"):
            scores_NC = scores_NC - constant_C[centered_C]
        assert row["nll"] == pytest.approx(_loss(scores_NC, label_N, temperature), abs=1e-6)


@pytest.mark.parametrize("missing", ["val", "test"])
def test_without_val_or_test_samples_there_is_no_row(missing: str) -> None:
    """Nothing to fit on, or nothing to measure on."""
    samples, centers = _world()
    samples = samples.take(samples.splits_N != missing)
    to_do = tasks(SEEN_C, labels_used=True)
    assert _calibrated(samples, centers, to_do, "mean") == []


def test_where_no_temperature_is_best_the_row_says_so() -> None:
    """All val samples right: the temperature and what follows from it are None, the values before remain."""
    samples, centers = _world()
    samples = samples.take(samples.category_N == 0)
    is_val = (samples.splits_N == "val")[:, None]
    samples = replace(samples, vectors_ND=np.where(is_val, centers.vectors_ND[0], samples.vectors_ND))
    seen = tasks(SEEN_C, labels_used=True)[:1]
    (row,) = _calibrated(samples, centers, seen)
    assert (row["temperature"], row["nll"], row["ece"]) == (None, None, None)
    assert row["nll_before"] > 0
