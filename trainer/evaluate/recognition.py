"""Recognition rows: accuracy, recall and average precision by task and anchor set, and sweeps.

Shapes: N samples, C categories, L labels of a sample, T best, R relevant samples, B categories of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.evaluate.intervals import lead, share_interval
from trainer.evaluate.outcomes import RecognitionOutcomes
from trainer.evaluate.predictions import TaskPredictions
from trainer.evaluate.tasks import CENTERS, Task
from trainer.records import Bools, Ints, SampleSet
from trainer.score.blas import parallel_map
from trainer.score.ways import Scores

_BLOCK = 64  # categories whose scores are copied together


def recognition_rows(
    predictions: Sequence[TaskPredictions], *, model: str, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], list[RecognitionOutcomes]]:
    """Rows {modality, split, anchors, k, scorer, model, top1, top1_low, top1_high, top5, mean_recall, map,
    chance, n}, and the outcome of every sample.

    A prediction is right if it is any of the sample's categories. `k` is the largest number of texts per
    candidate, `chance` is one over the number of candidates. A candidate without a text is never predicted;
    its samples count as errors. `mean_recall` is described at the function of that name, `map`, which only
    the LLM centers have, at `mean_average_precision`. Rows of controls also have lead, lead_low, lead_high
    and p (`intervals.Lead`): how far the LLM centers are ahead.
    """
    rows: list[dict[str, Any]] = []
    outcomes: list[RecognitionOutcomes] = []
    for each in predictions:
        task, shown = each.task, each.shown
        ours: RecognitionOutcomes | None = None
        for top in each.by_anchors:
            outcome = recognition_outcomes(top.categories_NT, shown, split=task.split, anchors=top.anchors)
            outcomes.append(outcome)
            row: dict[str, Any] = {
                "modality": shown.modality,
                "split": task.split,
                "anchors": top.anchors,
                "k": top.k,
                "scorer": top.scorer,
                "model": model,
                **accuracies(outcome, task, resamples=resamples, seed=seed),
                "map": None,
            }
            if top.anchors == CENTERS:
                ours = outcome
                row["map"] = mean_average_precision(each.scores_NC, shown.labels(), task.shown_C)
            elif ours is not None:
                row |= lead(
                    ours.hit_N, outcome.hit_N, shown.object_N, resamples=resamples, seed=seed
                ).as_row()
            rows.append(row)
    return rows, outcomes


def recognition_outcomes(
    predicted_NT: Ints, shown: SampleSet, *, split: str, anchors: str
) -> RecognitionOutcomes:
    """The first of each sample's predicted categories, and whether it and the first five are right."""
    hits_NT = (predicted_NT[:, :, None] == shown.labels()[:, None, :]).any(axis=2)
    return RecognitionOutcomes(
        split, anchors, shown, predicted_NT[:, 0], hits_NT[:, 0], hits_NT[:, :5].any(axis=1)
    )


def accuracies(outcome: RecognitionOutcomes, task: Task, *, resamples: int, seed: int) -> dict[str, Any]:
    """The keys of a row about accuracy: top1 with its interval, top5, mean_recall, chance and n."""
    low, high = share_interval(outcome.hit_N, resamples=resamples, seed=seed)
    return {
        "top1": float(outcome.hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "top5": float(outcome.hit5_N.mean()),
        "mean_recall": mean_recall(outcome, task.shown_C),
        "chance": 1 / int(task.candidates_C.sum()),
        "n": len(outcome.hit_N),
    }


def mean_recall(outcome: RecognitionOutcomes, shown_C: Bools) -> float:
    """The mean over the shown categories of their recall: the share of a category's samples that are right.

    A sample with several of these categories counts for each, as right if any of them is predicted.
    """
    labels_NL = outcome.shown.labels()
    rows, columns = np.nonzero((labels_NL >= 0) & shown_C[labels_NL])
    labels = labels_NL[rows, columns]
    n_C = np.bincount(labels, minlength=len(shown_C))
    hits_C = np.bincount(labels, weights=outcome.hit_N[rows], minlength=len(shown_C))
    return float(np.mean(hits_C[n_C > 0] / n_C[n_C > 0]))


def sweep_rows(
    predictions: Sequence[TaskPredictions], *, model: str, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Recognition rows of the LLM centers for each number of centers and for each scorer.

    By the run's scorer for the first k of a category's ranked centers, for each k in `predictions.COUNTS`
    below the largest number that a category has; and by every scorer for all centers. Rows have no `map`.
    """
    rows: list[dict[str, Any]] = []
    for each in predictions:
        for top in each.by_sweep:
            outcome = recognition_outcomes(
                top.categories_NT, each.shown, split=each.task.split, anchors=top.anchors
            )
            rows.append(
                {
                    "modality": each.shown.modality,
                    "split": each.task.split,
                    "anchors": top.anchors,
                    "k": top.k,
                    "scorer": top.scorer,
                    "model": model,
                    **accuracies(outcome, each.task, resamples=resamples, seed=seed),
                }
            )
    return rows


def average_precision(scores_N: Scores, relevant_N: Bools) -> float:
    """Σ_k (R_k - R_{k-1}) P_k over the distinct scores, highest first; equal scores are one step.

    P_k and R_k are precision and recall among the samples with at least the k-th score: not interpolated, as
    scikit-learn's `average_precision_score`. It is the mean over the relevant samples of the precision at
    their own score, so that sorting the values suffices. Raises ValueError where nothing is relevant.
    """
    relevant_R = np.sort(scores_N[relevant_N])
    if len(relevant_R) == 0:
        raise ValueError("nothing is relevant")
    above_R = len(scores_N) - np.searchsorted(np.sort(scores_N), relevant_R)
    relevant_above_R = len(relevant_R) - np.searchsorted(relevant_R, relevant_R)
    return float(np.mean(relevant_above_R / above_R))


def mean_average_precision(scores_NC: Scores, labels_NL: Ints, shown_C: Bools) -> float | None:
    """The mean of the average precision over the categories in `shown_C` that some sample has.

    Each category ranks all samples by its score (`scoring.category_scores`); a sample counts for every
    label it has (`labels_NL`, -1 where there are fewer). For a category without a center, all samples tie.
    None where no sample has a category in `shown_C`.
    """
    categories = np.intersect1d(labels_NL, np.flatnonzero(shown_C))
    if len(categories) == 0:
        return None

    def block(start: int) -> list[float]:
        own = categories[start : start + _BLOCK]
        columns_BN = np.ascontiguousarray(scores_NC[:, own].T)
        return [
            average_precision(scores_N, (labels_NL == category).any(axis=1))
            for scores_N, category in zip(columns_BN, own.tolist(), strict=True)
        ]

    return float(np.mean(np.concatenate(parallel_map(block, range(0, len(categories), _BLOCK)))))
