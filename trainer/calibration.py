"""Probabilities of categories: softmax of their scores over a temperature that is fitted on the val split.

Shapes: N samples, B samples of a block, C categories. Scores are those of `scoring.category_scores`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.recognition import Task
from trainer.records import Centers, Doubles, Ints, SampleSet
from trainer.scoring import category_scores
from trainer.settings import Scorer

BINS = 15

_CELLS = 2**20  # scores that are looked at in one go
_PRECISION = 1e-9  # of the temperature, relative


def probabilities(scores_NC: Doubles, temperature: float) -> Doubles:
    """softmax(scores / temperature): float64[N, C], each row with sum 1; minus infinity gets 0."""
    odds_NC = np.exp((scores_NC - scores_NC.max(axis=1, keepdims=True)) / temperature)
    shares_NC: Doubles = odds_NC / odds_NC.sum(axis=1, keepdims=True)
    return shares_NC


def log_loss(scores_NC: Doubles, label_N: Ints, temperature: float) -> float:
    """The mean negative log-likelihood of the labels under `probabilities`, in nats; scores are finite."""
    total = 0.0
    for scores_BC, label_B in _blocks(scores_NC, label_N):
        below_BC = (scores_BC - scores_BC.max(axis=1, keepdims=True)) / temperature
        own_B = below_BC[np.arange(len(label_B)), label_B]
        total += float(np.sum(np.log(np.exp(below_BC).sum(axis=1)) - own_B))
    return total / len(label_N)


def calibration_error(scores_NC: Doubles, label_N: Ints, temperature: float) -> float:
    """The expected calibration error, with 15 bins of equal width: Σ_b |B_b| / N · |acc(B_b) - conf(B_b)|.

    Bin b holds the samples whose largest probability lies in (b / 15, (b + 1) / 15]; acc is the share of
    those whose category of that probability is right, conf the mean of that probability (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017, equation 3).
    """
    surplus_b = np.zeros(BINS)  # |B_b| · (acc - conf)
    for scores_BC, label_B in _blocks(scores_NC, label_N):
        shares_BC = probabilities(scores_BC, temperature)
        sure_B, hit_B = shares_BC.max(axis=1), scores_BC.argmax(axis=1) == label_B
        bin_B = np.clip(np.ceil(sure_B * BINS).astype(np.int64) - 1, 0, BINS - 1)
        surplus_b += np.bincount(bin_B, weights=hit_B - sure_B, minlength=BINS)
    return float(np.abs(surplus_b).sum() / len(label_N))


def fit_temperature(scores_NC: Doubles, label_N: Ints) -> float | None:
    """The temperature that minimises `log_loss` (Guo et al. 2017, section 4.2); scores are finite.

    In β = 1 / temperature the loss is convex; its slope, the mean of Σ_c p_c s_c - s_own, rises with β and
    is bisected. None where no temperature above 0 is best: each sample scores its own category highest (the
    colder the better), or all do on average no higher than any other (the warmer the better).
    """
    own_N = scores_NC[np.arange(len(label_N)), label_N]
    if (own_N == scores_NC.max(axis=1)).all() or _slope(scores_NC, label_N, 0.0) >= 0:
        return None
    low, high = 0.0, 1.0
    while _slope(scores_NC, label_N, high) < 0:
        low, high = high, 2 * high
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(scores_NC, label_N, middle) < 0 else (low, middle)
    return 2 / (low + high)


def calibrate(
    sets: dict[str, SampleSet], centers: Centers, tasks: list[Task], *, model: str, scorer: Scorer
) -> list[dict[str, Any]]:
    """One row for each modality with labelled val samples, and each task with test samples of it.

    Keys: modality, model, split_fitted ("val"), split, scorer, temperature, n_fit, n, nll_before, nll,
    ece_before, ece. The temperature is fitted among all categories, as `predict` ranks them, and measured
    among the task's candidates beside temperature 1 (`_before`). Samples of a category without a center have
    no probability and are left out of `n_fit` and `n`. Where no temperature is best (see `fit_temperature`),
    it, `nll` and `ece` are None.
    """
    rows: list[dict[str, Any]] = []
    centered_C = centers.counts() > 0
    for modality, encoded in sets.items():
        known = encoded.take((encoded.category_N >= 0) & centered_C[encoded.category_N])
        val, test = known.split("val"), known.split("test")
        if len(val) == 0 or len(test) == 0:
            continue
        place_C = np.cumsum(centered_C) - 1  # of a category among those that have a center
        val_NC = category_scores(val.vectors_ND, centers, scorer)[:, centered_C]
        temperature = fit_temperature(val_NC, place_C[val.category_N])
        test_NC = category_scores(test.vectors_ND, centers, scorer)
        for task in tasks:
            shown_N, among_C = task.shown_C[test.category_N], task.candidates_C & centered_C
            if not shown_N.any():
                continue
            scores_NC = test_NC[np.ix_(shown_N, among_C)]
            label_N = (np.cumsum(among_C) - 1)[test.category_N[shown_N]]
            row: dict[str, Any] = {
                "modality": modality,
                "model": model,
                "split_fitted": "val",
                "split": task.split,
                "scorer": scorer,
                "temperature": temperature,
                "n_fit": len(val),
                "n": len(label_N),
            }
            for name, measure in (("nll", log_loss), ("ece", calibration_error)):
                row[f"{name}_before"] = measure(scores_NC, label_N, 1.0)
                row[name] = None if temperature is None else measure(scores_NC, label_N, temperature)
            rows.append(row)
    return rows


def _slope(scores_NC: Doubles, label_N: Ints, beta: float) -> float:
    """The derivative of the mean loss with respect to β = 1 / temperature."""
    total = 0.0
    for scores_BC, label_B in _blocks(scores_NC, label_N):
        above_BC = scores_BC - scores_BC[np.arange(len(label_B)), label_B][:, None]
        odds_BC = np.exp(beta * (above_BC - above_BC.max(axis=1, keepdims=True)))
        total += float(np.sum(np.sum(odds_BC * above_BC, axis=1) / odds_BC.sum(axis=1)))
    return total / len(label_N)


def _blocks(scores_NC: Doubles, label_N: Ints) -> Iterator[tuple[Doubles, Ints]]:
    step = max(1, _CELLS // scores_NC.shape[1])
    for start in range(0, len(label_N), step):
        yield scores_NC[start : start + step], label_N[start : start + step]
