"""Which category does a vector belong to, and why: by its nearest center, or by all of a category's.

Shapes: N queries, D dimensions, M centers, K centers of one category, C categories, F categories that have a
center, T best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from trainer.records import Centers, Doubles, Floats, Ints
from trainer.score.geometry import require_finite, rounded
from trainer.score.topk import nearest_keys, top_segments
from trainer.score.ways import Measure, Scores, Way, rank_ways
from trainer.settings import Scorer

# A query's cosines with the centers of one category differ by about this much (0.04 to 0.07 with MiniLM): the
# nearest few speak together. Towards 0 it becomes `nearest`, towards infinity the mean of the cosines.
TEMPERATURE = 0.05


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
    - logsumexp: τ log mean_k exp(x · z_k / τ), a soft maximum with τ = `temperature`; by the mean over the
      category's own K centers, categories with many and few are comparable.
    - mean: x · the unit mean of the centers, in float32 as centers are.
    - medoid: x · the center with the largest summed cosine to the category's others.

    Only categories that have a center take part, so fewer than `top` columns may come back. Scores are
    computed in float64 and rounded to nine decimals; ties go to the lower category index, and within a
    category to the earlier center, so a zero query gets the first category with score 0. `why_NT` is the
    nearest center within the category, by whatever scorer it was ranked. Beside the answer it takes about
    100 MB, whatever N and M. Raises ValueError for NaN and infinity (with the row), for no centers or ones
    that are not sorted by category, an unknown scorer, a temperature that is not positive and `top` below 1.
    """
    owners_F, starts_F = _owners_and_starts(centers, scorer, temperature)
    places_NT, scores_NT, why_NT = _rank(queries_ND, centers, starts_F, scorer, top, temperature)
    if why_NT is None:
        why_NT = nearest_keys(queries_ND, centers.vectors_ND, starts_F, places_NT)
    return Ranked(owners_F[places_NT], scores_NT, why_NT)


def best_categories(queries_ND: Floats, centers: Centers, *, scorer: Scorer, top: int) -> Ints:
    """`score` without reasons, which cost as much again for all scorers but `nearest`: int64[N, T]."""
    owners_F, starts_F = _owners_and_starts(centers, scorer, TEMPERATURE)
    return owners_F[_rank(queries_ND, centers, starts_F, scorer, top, TEMPERATURE)[0]]


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
    keys_MD, soft = centers.vectors_ND, scorer == "logsumexp"
    if scorer in ("mean", "medoid"):
        keys_MD = _representatives(keys_MD, starts_F, scorer)
        starts_F = np.arange(len(starts_F))
    _, scores_NF = rank_ways(
        queries_ND, keys_MD, starts_F, (), top=1, temperature=temperature, whole=Measure(soft)
    )
    if len(owners_F) == len(centers.categories):
        return scores_NF
    scores_NC = np.full((len(queries_ND), len(centers.categories)), -np.inf, scores_NF.dtype)
    scores_NC[:, owners_F] = scores_NF
    return scores_NC


def _rank(
    queries_ND: Floats, centers: Centers, starts_F: Ints, scorer: Scorer, top: int, temperature: float
) -> tuple[Ints, Doubles, Ints | None]:
    """Places of the best categories, their scores, and their nearest centers if these are known already."""
    if top < 1:
        raise ValueError(f"cannot take the best {top}")
    if scorer == "nearest":
        best = top_segments(queries_ND, centers.vectors_ND, starts_F, top=top, keys_name="centers")
        return best.segments_NT, best.scores_NT, best.keys_NT
    require_finite(queries_ND, "queries")  # which the kernel sees to itself
    require_finite(centers.vectors_ND, "centers")
    if scorer == "logsumexp":
        way = Way(Measure(soft=True), np.arange(len(starts_F)))
        ((ranking,), _) = rank_ways(
            queries_ND, centers.vectors_ND, starts_F, [way], top=top, temperature=temperature
        )
        return ranking.categories_NT, ranking.scores_NT, None
    speakers_FD = _representatives(centers.vectors_ND, starts_F, scorer)
    best = top_segments(queries_ND, speakers_FD, top=top, keys_name="centers")
    return best.segments_NT, best.scores_NT, None


def _owners_and_starts(centers: Centers, scorer: str, temperature: float) -> tuple[Ints, Ints]:
    """The categories that have centers, and where theirs begin; ValueError for what cannot be scored."""
    if scorer not in get_args(Scorer):
        raise ValueError(f"unknown scorer {scorer!r}; known: {', '.join(get_args(Scorer))}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    if len(centers.row_ids) == 0:
        raise ValueError("there are no centers to score against")
    if (np.diff(centers.category_N) < 0).any():
        raise ValueError("the centers are not sorted by category")
    return np.unique(centers.category_N, return_index=True)


def _representatives(centers_MD: Floats, starts_F: Ints, scorer: Scorer) -> Floats:
    """One unit vector per category, for `mean` and `medoid`: float32[F, D]."""
    speakers_FD = np.empty((len(starts_F), centers_MD.shape[1]), dtype=np.float32)
    for place, own_KD in enumerate(np.split(centers_MD, starts_F[1:])):
        sum_D = own_KD.sum(axis=0, dtype=np.float64)
        if scorer == "mean":
            length = float(np.linalg.norm(sum_D))
            speakers_FD[place] = sum_D / length if length > 0 else 0.0
        else:
            x_KD = own_KD.astype(np.float64)
            to_others_K = x_KD @ sum_D - np.vecdot(x_KD, x_KD)
            speakers_FD[place] = own_KD[np.argmax(rounded(to_others_K))]
    return speakers_FD
