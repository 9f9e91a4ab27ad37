"""Classify vectors: score and rank the categories by their centers, and name the centers that decided.

To add a scorer, write its function, enter it in `SCORERS` and name it in `trainer.settings.Scorer`.

Shapes: N queries, D dimensions, M centers, K centers of one category, C categories, F categories that have a
center, T best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.records import Centers, Doubles, Floats, Ints
from trainer.score.geometry import require_finite, rounded
from trainer.score.topk import nearest_keys, top_segments
from trainer.score.ways import Measure, Scores, Way, rank_ways
from trainer.settings import Scorer

# A query's cosines with the centers of one category differ by about this much (0.04 to 0.07 with MiniLM), so
# that the nearest few decide together. Towards 0 the scorer `logsumexp` becomes `nearest`, towards infinity
# the mean of the cosines.
TEMPERATURE = 0.05


# One vector that represents a category's centers: float [K, D] -> [D].
Representative = Callable[[Floats], Floats | Doubles]


def _unit_mean(own_KD: Floats) -> Floats | Doubles:
    sum_D: Doubles = own_KD.sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(sum_D))
    return sum_D / length if length > 0 else np.zeros_like(sum_D)


def _medoid(own_KD: Floats) -> Floats | Doubles:
    x_KD = own_KD.astype(np.float64)
    to_others_K = x_KD @ own_KD.sum(axis=0, dtype=np.float64) - np.vecdot(x_KD, x_KD)
    medoid_D: Floats = own_KD[np.argmax(rounded(to_others_K))]
    return medoid_D


# How each scorer scores a category: by a measure over all its centers, or by one vector that represents them.
SCORERS: dict[Scorer, Measure | Representative] = {
    "nearest": Measure(),
    "logsumexp": Measure(soft=True),
    "mean": _unit_mean,
    "medoid": _medoid,
}


@dataclass(frozen=True)
class Ranked:
    """The T best categories of each query, best first."""

    categories_NT: Ints  # indices into `Centers.categories`
    scores_NT: Doubles
    why_NT: Ints  # the row of `Centers.row_ids` that is nearest within the category

    def why(self, centers: Centers, query: int) -> list[str]:
        """The row ids of the centers nearest to a query, best category first."""
        return [centers.row_ids[row] for row in self.why_NT[query]]


def score(
    queries_ND: Floats,
    centers: Centers,
    *,
    scorer: Scorer = "nearest",
    top: int = 5,
    temperature: float = TEMPERATURE,
) -> Ranked:
    """Rank the categories for each query x by the centers z_1 … z_K of each; all are unit vectors.

    - nearest: max_k x · z_k (UniBind, CVPR 2024, section 3.4).
    - logsumexp: τ log mean_k exp(x · z_k / τ), a soft maximum with τ = `temperature`; the mean over the
      category's own K centers makes categories with many and few centers comparable.
    - mean: x · the unit mean of the centers, in float32 as centers are.
    - medoid: x · the center with the largest summed cosine to the category's others.

    Only categories that have a center are ranked, so the result may have fewer than `top` columns. Scores are
    computed in float64 and rounded to nine decimals; ties go to the lower category index, and within a
    category to the earlier center, so a zero query gets the first category with score 0. `why_NT` is the
    nearest center within the category, for every scorer. Needs about 100 MB beside the result, for any N and
    M. Raises ValueError for NaN and infinity (with the row), for no centers or centers that are not sorted by
    category, an unknown scorer, a temperature that is not positive and `top` below 1.
    """
    owners_F, starts_F = _owners_and_starts(centers, scorer, temperature)
    places_NT, scores_NT, why_NT = _rank(queries_ND, centers, starts_F, scorer, top, temperature)
    if why_NT is None:
        why_NT = nearest_keys(queries_ND, centers.vectors_ND, starts_F, places_NT)
    return Ranked(owners_F[places_NT], scores_NT, why_NT)


def best_categories(queries_ND: Floats, centers: Centers, *, scorer: Scorer, top: int) -> Ints:
    """Only the categories of `score`, in less time: int64[N, T]."""
    owners_F, starts_F = _owners_and_starts(centers, scorer, TEMPERATURE)
    return owners_F[_rank(queries_ND, centers, starts_F, scorer, top, TEMPERATURE, order_only=True)[0]]


def nearest_centers(queries_ND: Floats, centers: Centers, categories_NT: Ints) -> Ints:
    """The row of the center nearest to each query within each category, as `Ranked.why_NT`: int64[N, T].

    The categories have centers.
    """
    owners_F, starts_F = np.unique(centers.category_N, return_index=True)
    return nearest_keys(queries_ND, centers.vectors_ND, starts_F, np.searchsorted(owners_F, categories_NT))


def category_scores(
    queries_ND: Floats, centers: Centers, scorer: Scorer = "nearest", *, temperature: float = TEMPERATURE
) -> Scores:
    """The score of every category for each query, as `score` defines it: float64[N, C].

    A category without centers scores minus infinity. Of very many queries and centers (see `ways.rank_ways`)
    it is float32. Raises what `score` raises.
    """
    require_finite(queries_ND, "queries")
    require_finite(centers.vectors_ND, "centers")
    owners_F, starts_F = _owners_and_starts(centers, scorer, temperature)
    keys_MD, kind = centers.vectors_ND, SCORERS[scorer]
    if not isinstance(kind, Measure):
        keys_MD, kind = _representatives(keys_MD, starts_F, kind), Measure()
        starts_F = np.arange(len(starts_F))
    _, scores_NF = rank_ways(queries_ND, keys_MD, starts_F, (), top=1, temperature=temperature, whole=kind)
    if len(owners_F) == len(centers.categories):
        return scores_NF
    scores_NC = np.full((len(queries_ND), len(centers.categories)), -np.inf, scores_NF.dtype)
    scores_NC[:, owners_F] = scores_NF
    return scores_NC


def _rank(
    queries_ND: Floats,
    centers: Centers,
    starts_F: Ints,
    scorer: Scorer,
    top: int,
    temperature: float,
    *,
    order_only: bool = False,
) -> tuple[Ints, Doubles, Ints | None]:
    """Places of the best categories, their scores, and their nearest centers where the scorer finds them.

    `order_only`: only the places, the others are empty.
    """
    how: dict[str, Any] = {"top": top, "order_only": order_only}
    if top < 1:
        raise ValueError(f"cannot take the best {top}")
    if scorer == "nearest":
        best = top_segments(queries_ND, centers.vectors_ND, starts_F, keys_name="centers", **how)
        return best.segments_NT, best.scores_NT, best.keys_NT
    require_finite(queries_ND, "queries")  # for `nearest`, `top_segments` checks that
    require_finite(centers.vectors_ND, "centers")
    kind = SCORERS[scorer]
    if isinstance(kind, Measure):
        way = Way(kind, np.arange(len(starts_F)))
        ((ranking,), _) = rank_ways(
            queries_ND, centers.vectors_ND, starts_F, [way], temperature=temperature, **how
        )
        return ranking.categories_NT, ranking.scores_NT, None
    representatives_FD = _representatives(centers.vectors_ND, starts_F, kind)
    best = top_segments(queries_ND, representatives_FD, keys_name="centers", **how)
    return best.segments_NT, best.scores_NT, None


def _owners_and_starts(centers: Centers, scorer: str, temperature: float) -> tuple[Ints, Ints]:
    """The categories that have centers, and the row where each one's begin; ValueError as `score` says."""
    if scorer not in SCORERS:
        raise ValueError(f"unknown scorer {scorer!r}; known: {', '.join(SCORERS)}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    if len(centers.row_ids) == 0:
        raise ValueError("there are no centers to score against")
    if (np.diff(centers.category_N) < 0).any():
        raise ValueError("the centers are not sorted by category")
    return np.unique(centers.category_N, return_index=True)


def _representatives(centers_MD: Floats, starts_F: Ints, represent: Representative) -> Floats:
    """One unit vector per category: float32[F, D]."""
    representatives_FD = np.empty((len(starts_F), centers_MD.shape[1]), dtype=np.float32)
    for place, own_KD in enumerate(np.split(centers_MD, starts_F[1:])):
        representatives_FD[place] = represent(own_KD)
    return representatives_FD
