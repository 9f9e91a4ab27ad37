"""Average precision: does a category's score put its samples before all others?

Shapes: N samples, C categories, B categories of a block, L labels of a sample.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.blas import spread
from trainer.records import Bools, Centers, Doubles, Floats, Ints
from trainer.scoring import category_scores
from trainer.settings import Scorer

_CELLS = 2**24  # scores that are held at a time: 128 MiB


def average_precision(scores_N: Doubles, relevant_N: Bools) -> float:
    """Σ_k (R_k - R_{k-1}) P_k over the distinct scores, highest first; equal scores are one step.

    P_k and R_k are precision and recall among the samples with at least the k-th score: not interpolated, as
    scikit-learn's `average_precision_score`. Raises ValueError where nothing is relevant.
    """
    total = int(relevant_N.sum())
    if total == 0:
        raise ValueError("nothing is relevant")
    order = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order]
    ends = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]), len(order) - 1)
    found = np.cumsum(relevant_N[order])[ends]
    return float(np.sum(np.diff(found, prepend=0) * found / (ends + 1)) / total)


def mean_average_precision(
    vectors_ND: Floats, labels_NL: Ints, centers: Centers, shown_C: Bools, *, scorer: Scorer
) -> float | None:
    """The mean of the average precision over the categories in `shown_C` that some sample has.

    Each category ranks all samples by its own score (`scoring.category_scores`); a sample counts for every
    label it has (`labels_NL`, -1 where there are fewer). A category without a center ranks nothing: all tie.
    None where no sample has a category that is shown. All scores are computed, a block of categories at a
    time: N · M products in float64 for M centers.
    """
    categories = np.intersect1d(labels_NL, np.flatnonzero(shown_C))
    if len(categories) == 0:
        return None
    values: list[float] = []
    step = max(1, _CELLS // len(vectors_ND))
    for start in range(0, len(categories), step):
        block = categories[start : start + step]
        in_block_C = np.isin(np.arange(len(shown_C)), block)
        own = centers.of(in_block_C)
        scores_NB = np.zeros((len(vectors_ND), len(block)))
        if len(own.row_ids):
            names = tuple(centers.categories[category] for category in block.tolist())
            own = replace(own, categories=names, category_N=np.searchsorted(block, own.category_N))
            scores_NB = category_scores(vectors_ND, own, scorer)
        values += _each(scores_NB, labels_NL, block)
    return float(np.mean(values))


def _each(scores_NB: Doubles, labels_NL: Ints, categories: Ints) -> list[float]:
    def one(place: int) -> float:
        return average_precision(scores_NB[:, place], (labels_NL == categories[place]).any(axis=1))

    return spread(one, range(len(categories)))
