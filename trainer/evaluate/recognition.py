"""Recognition: which category is it? Per modality, on seen and unseen categories, beside the controls.

Shapes: N samples, C categories, L labels of a sample, T best.
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

_BLOCK = 64  # categories whose scores are laid side by side


def recognition_rows(
    asked: Sequence[TaskPredictions], *, model: str, resamples: int, seed: int
) -> tuple[list[dict[str, Any]], list[RecognitionOutcomes]]:
    """Rows {modality, split, anchors, k, scorer, model, top1, top1_low, top1_high, top5, mean_recall, map,
    chance, n}, and of every sample what it was named.

    A sample is named rightly by any of its categories. `k` is the largest number of texts per candidate,
    `chance` is one over the number of candidates. A candidate without a text can never be named; its samples
    count as errors. `mean_recall` is told in `mean_recall`; `map`, of the LLM centers only, in `precision`.
    Rows of controls have lead, lead_low, lead_high and p beside (`paired.Lead`): how far the LLM centers are
    ahead.
    """
    rows: list[dict[str, Any]] = []
    namings: list[RecognitionOutcomes] = []
    for answers in asked:
        task, shown = answers.task, answers.shown
        ours: RecognitionOutcomes | None = None
        for named in answers.by_anchors:
            naming = recognition_outcomes(named.categories_NT, shown, split=task.split, anchors=named.anchors)
            namings.append(naming)
            row: dict[str, Any] = {
                "modality": shown.modality,
                "split": task.split,
                "anchors": named.anchors,
                "k": named.k,
                "scorer": named.scorer,
                "model": model,
                **accuracies(naming, task, resamples=resamples, seed=seed),
                "map": None,
            }
            if named.anchors == CENTERS:
                ours = naming
                row["map"] = mean_average_precision(answers.scores_NC, shown.labels(), task.shown_C)
            elif ours is not None:
                row |= lead(ours.hit_N, naming.hit_N, shown.object_N, resamples=resamples, seed=seed).named()
            rows.append(row)
    return rows, namings


def recognition_outcomes(
    named_NT: Ints, shown: SampleSet, *, split: str, anchors: str
) -> RecognitionOutcomes:
    """What each sample is named, best first, and whether that is one of its categories."""
    hits_NT = (named_NT[:, :, None] == shown.labels()[:, None, :]).any(axis=2)
    return RecognitionOutcomes(
        split, anchors, shown, named_NT[:, 0], hits_NT[:, 0], hits_NT[:, :5].any(axis=1)
    )


def accuracies(naming: RecognitionOutcomes, task: Task, *, resamples: int, seed: int) -> dict[str, Any]:
    """The keys of a row that count hits: top1 with its interval, top5, mean_recall, chance and n."""
    low, high = share_interval(naming.hit_N, resamples=resamples, seed=seed)
    return {
        "top1": float(naming.hit_N.mean()),
        "top1_low": low,
        "top1_high": high,
        "top5": float(naming.hit5_N.mean()),
        "mean_recall": mean_recall(naming, task.shown_C),
        "chance": 1 / int(task.candidates_C.sum()),
        "n": len(naming.hit_N),
    }


def mean_recall(naming: RecognitionOutcomes, shown_C: Bools) -> float:
    """The mean over the shown categories of the share of its samples that are named rightly.

    A sample with several of these categories counts for each, as right where it is named any of its own.
    """
    labels_NL = naming.shown.labels()
    rows, columns = np.nonzero((labels_NL >= 0) & shown_C[labels_NL])
    labels = labels_NL[rows, columns]
    n_C = np.bincount(labels, minlength=len(shown_C))
    hits_C = np.bincount(labels, weights=naming.hit_N[rows], minlength=len(shown_C))
    return float(np.mean(hits_C[n_C > 0] / n_C[n_C > 0]))


def sweep_rows(
    asked: Sequence[TaskPredictions], *, model: str, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Recognition rows of the LLM centers for each number of centers and for each scorer.

    By the run's scorer for the first k of a category's ranked centers, k in `answers.COUNTS` below the
    largest number that a category has; and by every scorer for all centers. `k` is that number. Rows have no
    `map`.
    """
    rows: list[dict[str, Any]] = []
    for answers in asked:
        for named in answers.by_sweep:
            naming = recognition_outcomes(
                named.categories_NT, answers.shown, split=answers.task.split, anchors=named.anchors
            )
            rows.append(
                {
                    "modality": answers.shown.modality,
                    "split": answers.task.split,
                    "anchors": named.anchors,
                    "k": named.k,
                    "scorer": named.scorer,
                    "model": model,
                    **accuracies(naming, answers.task, resamples=resamples, seed=seed),
                }
            )
    return rows


def average_precision(scores_N: Scores, relevant_N: Bools) -> float:
    """Σ_k (R_k - R_{k-1}) P_k over the distinct scores, highest first; equal scores are one step.

    P_k and R_k are precision and recall among the samples with at least the k-th score: not interpolated, as
    scikit-learn's `average_precision_score`. Every relevant sample adds the precision at its own score, so
    that only the values are sorted. Raises ValueError where nothing is relevant.
    """
    relevant_R = np.sort(scores_N[relevant_N])
    if len(relevant_R) == 0:
        raise ValueError("nothing is relevant")
    above_R = len(scores_N) - np.searchsorted(np.sort(scores_N), relevant_R)
    relevant_above_R = len(relevant_R) - np.searchsorted(relevant_R, relevant_R)
    return float(np.mean(relevant_above_R / above_R))


def mean_average_precision(scores_NC: Scores, labels_NL: Ints, shown_C: Bools) -> float | None:
    """The mean of the average precision over the categories in `shown_C` that some sample has.

    Each category ranks all samples by its own score (`scoring.category_scores`); a sample counts for every
    label it has (`labels_NL`, -1 where there are fewer). A category without a center ranks nothing: all tie.
    None where no sample has a category that is shown.
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
