"""Average precision: does a category's score put its samples before all others?

Shapes: N samples, C categories, B categories of a block, R relevant samples, L labels of a sample.
"""

from __future__ import annotations

import numpy as np

from trainer.blas import spread
from trainer.records import Bools, Ints
from trainer.ways import Scores

_BLOCK = 64  # categories whose scores are laid side by side


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

    return float(np.mean(np.concatenate(spread(block, range(0, len(categories), _BLOCK)))))
