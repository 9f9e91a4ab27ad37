"""Calibrate category probabilities: a softmax of scores whose temperature is fitted on the val split.

Shapes: N samples, B samples of a block, C categories. Scores are those of `scoring.category_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from trainer.evaluate.predictions import TaskPredictions
from trainer.evaluate.tasks import Task
from trainer.records import Bools, Centers, Doubles, Ints, SampleSet
from trainer.score.blas import parallel_map
from trainer.score.scoring import category_scores
from trainer.score.ways import Scores
from trainer.settings import Scorer

BINS = 15

_CELLS = 2**17  # scores processed together: 1 MiB in float64
_KEPT = 2**22  # scores, of which twice as many numbers are kept in float64: 64 MiB
_TOLERANCE = 1e-9  # of the temperature, relative

_Found = TypeVar("_Found")


def probabilities(scores_NC: Scores, temperature: float) -> Doubles:
    """softmax(scores / temperature): float64[N, C], each row with sum 1; minus infinity gets 0."""
    odds_NC = np.exp((scores_NC - scores_NC.max(axis=1, keepdims=True)) / temperature)
    shares_NC: Doubles = odds_NC / odds_NC.sum(axis=1, keepdims=True)
    return shares_NC


def log_loss(scores_NC: Scores, label_N: Ints, temperature: float) -> float:
    """The mean negative log-likelihood of the labels under `probabilities`, in nats; scores are finite."""
    return _loss_and_error(scores_NC, label_N, temperature)[0]


def calibration_error(scores_NC: Scores, label_N: Ints, temperature: float) -> float:
    """The expected calibration error, with 15 bins of equal width: Σ_b |B_b| / N · |acc(B_b) - conf(B_b)|.

    Bin b holds the samples whose largest probability lies in (b / 15, (b + 1) / 15]; acc is the share of them
    whose most probable category is right, conf the mean of that probability (Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, equation 3).
    """
    return _loss_and_error(scores_NC, label_N, temperature)[1]


def fit_temperature(scores_NC: Scores, label_N: Ints) -> float | None:
    """The temperature that minimises `log_loss` (Guo et al. 2017, section 4.2); scores are finite.

    In β = 1 / temperature the loss is convex; its slope, the mean of Σ_c p_c s_c - s_own, rises with β, and
    its zero is found by bisection. None where no temperature is best: every sample scores its own category
    highest (lower is always better), or own categories do not score above the mean (higher is always better).
    """
    own_N = scores_NC[np.arange(len(label_N)), label_N]
    if (own_N == scores_NC.max(axis=1)).all():
        return None
    slope = _slope_of(scores_NC, label_N)
    if slope(0.0) >= 0:
        return None
    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def calibration_rows(
    samples: SampleSet,
    centers: Centers,
    predictions: Sequence[TaskPredictions],
    *,
    model: str,
    scorer: Scorer,
    constant_C: Doubles | None = None,
) -> list[dict[str, Any]]:
    """One row for each task with labelled test samples, where the modality has labelled val samples.

    Keys: modality, model, split_fitted ("val"), split, scorer, temperature, n_fit, n, nll_before, nll,
    ece_before, ece. The temperature is fitted among all categories, as `predict` ranks them: `constant_C`, if
    given, is taken off the scores wherever trained and untrained categories compete. It is measured
    among the task's candidates beside temperature 1 (`_before`). Samples of a category without a center have
    no probability and are left out of `n_fit` and `n`. Where no temperature is best (see `fit_temperature`),
    `temperature`, `nll` and `ece` are None. `predictions`: those for the same `samples`.
    """
    val = samples.take((samples.splits_N == "val") & (samples.category_N >= 0))
    if len(val) == 0 or not len(centers.row_ids):
        return []
    return score_calibration_rows(
        category_scores(val.vectors_ND, centers, scorer),
        val.category_N,
        centers.counts() > 0,
        [(each.task, each.shown, each.scores_NC) for each in predictions],
        labels={"modality": samples.modality, "model": model, "scorer": scorer},
        constant_C=constant_C,
    )


def score_calibration_rows(
    val_NC: Scores,
    val_label_N: Ints,
    centered_C: Bools,
    tested: Sequence[tuple[Task, SampleSet, Scores]],
    *,
    labels: Mapping[str, str],
    constant_C: Doubles | None = None,
) -> list[dict[str, Any]]:
    """`calibration_rows` from the scores of val samples, and of the test samples of each task.

    `labels` are the values of the keys modality, model and scorer.
    """
    test = [
        (task, shown, scores_NC, (shown.splits_N == "test") & centered_C[shown.category_N])
        for task, shown, scores_NC in tested
    ]
    test = [each for each in test if each[-1].any()]
    fitted_N = centered_C[val_label_N]
    if not fitted_N.any() or not test:
        return []
    taken_off_C = np.zeros(len(centered_C)) if constant_C is None else constant_C
    place_C = np.cumsum(centered_C) - 1  # of a category among those that have a center
    val_NC = (val_NC - taken_off_C)[np.ix_(fitted_N, centered_C)]
    temperature = fit_temperature(val_NC, place_C[val_label_N[fitted_N]])
    rows: list[dict[str, Any]] = []
    for task, shown, all_scores_NC, shown_N in test:
        among_C = task.candidates_C & centered_C
        scores_NC = all_scores_NC
        if not (shown_N.all() and among_C.all()):
            scores_NC = scores_NC[np.ix_(shown_N, among_C)]
        off_F = taken_off_C[among_C]
        if len(np.unique(off_F)) > 1:
            scores_NC = scores_NC - off_F
        label_N = (np.cumsum(among_C) - 1)[shown.category_N[shown_N]]
        before = _loss_and_error(scores_NC, label_N, 1.0)
        after = (None, None) if temperature is None else _loss_and_error(scores_NC, label_N, temperature)
        rows.append(
            {
                "modality": labels["modality"],
                "model": labels["model"],
                "split_fitted": "val",
                "split": task.split,
                "scorer": labels["scorer"],
                "temperature": temperature,
                "n_fit": int(fitted_N.sum()),
                "n": len(label_N),
                "nll_before": before[0],
                "nll": after[0],
                "ece_before": before[1],
                "ece": after[1],
            }
        )
    return rows


def _loss_and_error(scores_NC: Scores, label_N: Ints, temperature: float) -> tuple[float, float]:
    """`log_loss` and `calibration_error` in one pass, because both need every probability."""

    def measure(scores_BC: Doubles, label_B: Ints) -> tuple[float, Doubles]:
        every_B, best_B = np.arange(len(label_B)), scores_BC.argmax(axis=1)
        below_BC = (scores_BC - scores_BC[every_B, best_B][:, None]) / temperature
        own_B = below_BC[every_B, label_B]
        sum_B = np.exp(below_BC, out=below_BC).sum(axis=1)
        sure_B = 1 / sum_B
        bin_B = np.clip(np.ceil(sure_B * BINS).astype(np.int64) - 1, 0, BINS - 1)
        surplus_B: Doubles = (best_B == label_B) - sure_B
        surplus_b = np.bincount(bin_B, weights=surplus_B, minlength=BINS).astype(np.float64)
        return float(np.sum(np.log(sum_B) - own_B)), surplus_b

    found = _blocks(scores_NC, label_N, measure)
    surplus_b = np.sum([surplus_b for _, surplus_b in found], axis=0)  # |B_b| · (acc - conf)
    return sum(loss for loss, _ in found) / len(label_N), float(np.abs(surplus_b).sum() / len(label_N))


def _slope_of(scores_NC: Scores, label_N: Ints) -> Callable[[float], float]:
    """The derivative of the mean loss with respect to β = 1 / temperature, as a function of β.

    Of few scores, what does not depend on β is kept.
    """

    def above(scores_BC: Doubles, label_B: Ints) -> tuple[Doubles, Doubles]:
        above_BC = scores_BC - scores_BC[np.arange(len(label_B)), label_B][:, None]
        return above_BC, above_BC - above_BC.max(axis=1, keepdims=True)

    def of_block(beta: float, above_BC: Doubles, below_BC: Doubles) -> float:
        odds_BC = beta * below_BC
        np.exp(odds_BC, out=odds_BC)
        return float(np.sum(np.vecdot(odds_BC, above_BC) / odds_BC.sum(axis=1)))

    if scores_NC.size <= _KEPT:
        kept = _blocks(scores_NC, label_N, above)
        return lambda beta: sum(parallel_map(lambda both: of_block(beta, *both), kept)) / len(label_N)
    return lambda beta: (
        sum(_blocks(scores_NC, label_N, lambda *some: of_block(beta, *above(*some)))) / len(label_N)
    )


def _blocks(scores_NC: Scores, label_N: Ints, measure: Callable[[Doubles, Ints], _Found]) -> list[_Found]:
    """`measure` of one block of samples after the other, in float64."""
    step = max(1, _CELLS // scores_NC.shape[1])

    def block(start: int) -> _Found:
        some = slice(start, start + step)
        return measure(scores_NC[some].astype(np.float64), label_N[some])

    starts = range(0, len(label_N), step)
    return parallel_map(block, starts) if len(starts) > 1 else [block(start) for start in starts]
