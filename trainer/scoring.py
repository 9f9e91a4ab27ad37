"""Which category does a vector belong to, and why: the one that owns its nearest center.

Shapes: N queries, D dimensions, M centers, U distinct centers, C categories, T best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.geometry import SCORE_DECIMALS, require_finite
from trainer.records import Centers, Floats, Ints

# Scores are held for as many queries at a time as fit into this many numbers (float32: 128 MiB).
_CHUNK_NUMBERS = 2**25


@dataclass(frozen=True)
class Ranked:
    """The T best categories of each query, best first."""

    categories_NT: Ints  # indices into `Centers.categories`
    scores_NT: Floats  # cosine with the winning center
    why_NT: Ints  # the row of `Centers.row_ids` that won within the category

    def why(self, centers: Centers, query: int) -> list[str]:
        """The row ids of a query's winning centers, best category first."""
        return [centers.row_ids[row] for row in self.why_NT[query]]


def score(
    queries_ND: Floats, centers: Centers, *, scorer: Literal["nearest"] = "nearest", top: int = 5
) -> Ranked:
    """Rank the categories for each query by their nearest center (UniBind, CVPR 2024, section 3.4).

    score(x, c) = max_k x · z_c^k over the centers z_c^k of category c; x and z are unit vectors. Only
    categories that have a center take part, so fewer than `top` columns may come back. Scores are rounded to
    six decimals; ties go to the lower category index, and within a category to the earlier center, so a zero
    query gets the first category with score 0. Raises ValueError for NaN, for no centers and for an unknown
    scorer.
    """
    if scorer != "nearest":
        raise ValueError(f"unknown scorer {scorer!r}; known: nearest")
    if len(centers.row_ids) == 0:
        raise ValueError("there are no centers to score against")
    require_finite(queries_ND, "queries")
    require_finite(centers.vectors_ND, "centers")
    owners_C, starts_C = np.unique(centers.category_N, return_index=True)
    stops_C = np.append(starts_C[1:], len(centers.category_N))
    top = min(top, len(owners_C))
    categories_NT = np.empty((len(queries_ND), top), dtype=np.int64)
    scores_NT = np.empty((len(queries_ND), top), dtype=np.float32)
    why_NT = np.empty((len(queries_ND), top), dtype=np.int64)
    # A matrix product may round equal columns differently, by their place. Each distinct center is multiplied
    # once, so that equal centers have equal scores on every machine.
    distinct_UD, place_M = np.unique(centers.vectors_ND, axis=0, return_inverse=True)
    step = max(1, _CHUNK_NUMBERS // len(centers.row_ids))
    for start in range(0, len(queries_ND), step):
        chunk = slice(start, start + step)
        cosine_NM = (queries_ND[chunk] @ distinct_UD.T)[:, place_M]
        np.round(cosine_NM, SCORE_DECIMALS, out=cosine_NM)
        best_NC = np.maximum.reduceat(cosine_NM, starts_C, axis=1)
        order_NT = np.argsort(-best_NC, axis=1, kind="stable")[:, :top]
        categories_NT[chunk] = owners_C[order_NT]
        scores_NT[chunk] = np.take_along_axis(best_NC, order_NT, axis=1)
        for row, places_T in enumerate(order_NT):
            why_NT[start + row] = [
                starts_C[c] + np.argmax(cosine_NM[row, starts_C[c] : stops_C[c]]) for c in places_T
            ]
    return Ranked(categories_NT, scores_NT, why_NT)
