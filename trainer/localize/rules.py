"""The rules of localization, over arrays: each ranks the descriptions of one category.

Shapes: N descriptions, M samples, C categories, D dimensions, K chosen.

Scores are computed from cosines in float64 between exactly normalised rows (a zero row has cosine 0 with
everything) and rounded to nine decimals. Ties go to the lower row, so rows should be sorted by their ids.
Float32 products only screen: every row that may be among the first K, within a margin that bounds the errors
of float32 and of rows not exactly of unit length, is scored again in float64. The result is that of float64
alone.

To add a rule, write its function, enter it in `RULES` and name it in `trainer.settings.Rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.records import Doubles, Floats, Ints
from trainer.score.blas import largest_error, one_thread_each, parallel_map
from trainer.score.geometry import SCORE_DECIMALS, require_finite, rounded
from trainer.settings import Rule

# Stored rows are of unit length within 1e-3, and rounding them to float16 adds half of that.
NORM_TOLERANCE = 2e-3

_TINY = 1e-300  # in place of a zero row's length
_LEAST = 10.0**-SCORE_DECIMALS  # the least difference between two scores
_CATEGORIES_PER_TASK = 16  # of a thread: enough to make the cost of a task negligible
_CELLS = 2**21  # of the largest temporary float64 matrix: 16 MiB
_RIVALS = 64  # centroids near a category's own that screen its descriptions in `rank_by_distinctness`
_NEIGHBOURS = 5  # categories that a name is taken to be confused with
_BATCH = 16  # candidates whose gain is computed together


class RankedRows(NamedTuple):
    """The chosen rows of one category, best first, and their scores."""

    rows_K: Ints
    scores_K: Doubles


def rank_by_mean(
    vectors_ND: Floats, starts_C1: Ints, guides_CD: npt.NDArray[np.floating], k: int
) -> tuple[Ints, Doubles]:
    """Rule `visual`: each category's rows by their cosine with its guide, best first.

    Category c has the rows `starts_C1[c]` to `starts_C1[c + 1]`, each of unit length within `NORM_TOLERANCE`
    or zero; guides may have any length. Returns int64[C, K] rows and float64[C, K] scores, where K is `k` or
    the size of the largest category if that is less; a smaller category is padded with row -1 and score NaN.
    Raises ValueError for NaN and infinite values. More than a few categories run on all cores.
    """
    n_categories = len(guides_CD)
    width = min(k, int(np.diff(starts_C1).max(initial=0)))
    rows_CK = np.full((n_categories, width), -1, np.int64)
    scores_CK = np.full((n_categories, width), np.nan)
    guides_CD = unit_doubles(guides_CD, "guides")
    guides32_CD = guides_CD.astype(np.float32)

    @np.errstate(invalid="ignore", over="ignore")  # values that are not finite raise below
    def rank(first: int) -> None:
        bounds = starts_C1[first : first + _CATEGORIES_PER_TASK + 1].tolist()
        for c, (start, stop) in enumerate(pairwise(bounds), start=first):
            own_ND = vectors_ND[start:stop]
            screen_N = np.dot(own_ND, guides32_CD[c])
            if not np.isfinite(np.dot(screen_N, screen_N)):
                require_finite(vectors_ND, "descriptions")
                raise ValueError("descriptions: rows must be of unit length, or zero")
            rows_X = _still_possible(screen_N, k, own_ND.shape[1])
            x_XD = own_ND.take(rows_X, axis=0).astype(np.float64)
            # By `vecdot`, not by a BLAS, so that equal rows tie exactly at any position.
            length_X = np.maximum(np.sqrt(np.vecdot(x_XD, x_XD)), _TINY)
            rows_K, score_K = _best(rows_X, np.vecdot(x_XD, guides_CD[c]) / length_X, k)
            rows_CK[c, : len(rows_K)] = rows_K + start
            scores_CK[c, : len(rows_K)] = score_K

    if n_categories <= _CATEGORIES_PER_TASK:
        rank(0)
    else:
        with one_thread_each():
            parallel_map(rank, range(0, n_categories, _CATEGORIES_PER_TASK))
    return rows_CK, scores_CK


def rank_by_nearest(vectors_ND: Floats, samples_MD: Floats, nearest: int, k: int) -> RankedRows:
    """Rule `visual` with `nearest_samples`: by the mean cosine with the `nearest` samples closest to a row.

    Where there are fewer samples (M >= 1), all of them count. Rows as in `rank_by_mean`; samples may have any
    length. Raises ValueError for NaN and infinite values.
    """
    unit_MD = unit_doubles(samples_MD, "samples")
    nearest = min(nearest, len(unit_MD))
    require_finite(vectors_ND, "descriptions")
    samples32_MD = unit_MD.astype(np.float32)
    screen_N = np.empty(len(vectors_ND))
    for part in _parts(len(vectors_ND), len(samples_MD)):
        screen_N[part] = _mean_of_largest(vectors_ND[part] @ samples32_MD.T, nearest)
    rows_X = _still_possible(screen_N, k, vectors_ND.shape[1])
    score_X = np.empty(len(rows_X))
    for part in _parts(len(rows_X), len(samples_MD)):
        unit_XD = unit_doubles(vectors_ND[rows_X[part]], "descriptions")
        score_X[part] = _mean_of_largest(unit_XD @ unit_MD.T, nearest)
    return _best(rows_X, score_X, k)


def rank_by_distinctness(vectors_ND: Floats, centroids_CD: Doubles, own: int, k: int) -> RankedRows:
    """By cos(row, own centroid) - max over the other categories of cos(row, their centroid).

    The centroids are means of texts (rule `text`), encoded names (`name`) or means of samples (`distinct`). A
    text that fits another category as well says little about its own, however typical it is. Centroids are
    unit rows; zero rows (of categories without texts) are ignored, and without other centroids the score is
    the cosine alone. Rows may have any length. Raises ValueError for NaN and infinite values.
    """
    unit_ND = unit_doubles(vectors_ND, "descriptions")
    all_N = np.arange(len(unit_ND))
    own_N = np.vecdot(unit_ND, centroids_CD[own])
    is_rival_C = np.any(centroids_CD != 0, axis=1)
    is_rival_C[own] = False
    rivals_CD = centroids_CD[is_rival_C]
    if len(rivals_CD) == 0:
        return _best(all_N, own_N, k)

    def exact(rows_X: Ints) -> Doubles:
        score_X = np.empty(len(rows_X))
        for part in _parts(len(rows_X), len(rivals_CD)):
            rows = rows_X[part]
            score_X[part] = own_N[rows] - (unit_ND[rows] @ rivals_CD.T).max(axis=1)
        return score_X

    if len(unit_ND) <= k or len(rivals_CD) <= _RIVALS:
        return _best(all_N, exact(all_N), k)
    # The nearest rivals alone bound a score from above. So the K rows with the largest bound are scored
    # exactly; then only rows whose bound reaches the least of those scores can be among the first K.
    likeliest_C = np.argpartition(rivals_CD @ centroids_CD[own], -_RIVALS)[-_RIVALS:]
    near_N = (unit_ND.astype(np.float32) @ rivals_CD[likeliest_C].astype(np.float32).T).max(axis=1)
    bound_N = own_N - near_N + _float32_error(unit_ND.shape[1])
    first_K = np.argpartition(bound_N, -k)[-k:]
    least = exact(first_K).min()
    rows_X = np.flatnonzero(bound_N >= least - _LEAST)
    return _best(rows_X, exact(rows_X), k)


def rank_by_neighbours(
    vectors_ND: Floats, centroids_CD: Doubles, own: int, neighbours_X: Ints, k: int
) -> RankedRows:
    """Rule `neighbours`: by cos(row, own centroid) - mean over the neighbours of cos(row, their centroid).

    The centroids are means of texts; neighbours are the categories whose names are nearest to the own name
    (`nearest_names`), which the name alone is confused with. After Ma et al. (arXiv 2412.11917), who measure
    with labelled images which descriptions tell a class from those; here texts measure it, without a sample.
    Centroids are unit rows; zero rows are ignored, and without neighbours the score is the cosine alone. Rows
    may have any length. Raises ValueError for NaN and infinite values.
    """
    unit_ND = unit_doubles(vectors_ND, "descriptions")
    rivals_XD = centroids_CD[neighbours_X]
    rivals_XD = rivals_XD[rivals_XD.any(axis=1)]
    direction_D = centroids_CD[own] - (rivals_XD.mean(axis=0) if len(rivals_XD) else 0.0)
    return _best(np.arange(len(unit_ND)), np.vecdot(unit_ND, direction_D), k)


def nearest_names(names_CD: Doubles, own: int) -> Ints:
    """The up to `_NEIGHBOURS` other categories whose names (unit rows) are nearest to the own, nearest first.

    Cosines are rounded to nine decimals; ties go to the lower index.
    """
    cosine_C = rounded(np.vecdot(names_CD, names_CD[own]))
    order_C: Ints = np.argsort(-cosine_C, kind="stable")
    others_X: Ints = order_C[order_C != own]
    return others_X[:_NEIGHBOURS]


def rank_by_coverage(vectors_ND: Floats, samples_MD: Floats, k: int) -> RankedRows:
    """Rule `diverse`: greedy facility location, so that every sample has a chosen row near it.

    Each step takes the row that adds most to f(S) = sum over the samples of their largest cosine with a
    chosen row (f of the empty set is 0); its score is the gain divided by the number of samples. Once no row
    adds anything to nine decimals, or where there is no sample, rows are chosen in the same way to cover the
    category's own rows; rows that repeat others come last, with score 0 and in their order. The greedy set
    reaches 1 - 1/e of the best possible f (Nemhauser, Wolsey and Fisher, 1978). Rows and samples may have any
    length. Raises ValueError for NaN and infinite values.
    """
    unit_ND = unit_doubles(vectors_ND, "descriptions")
    chosen: list[int] = []
    scores: list[float] = []
    covered = [unit_doubles(samples_MD, "samples"), unit_ND] if len(samples_MD) else [unit_ND]
    for covered_MD in covered:
        for row, score in _greedy(unit_ND, covered_MD, chosen, k):
            chosen.append(row)
            scores.append(score)
    rest = np.setdiff1d(np.arange(len(unit_ND)), chosen)[: max(0, k - len(chosen))]
    rows_K = np.array([*chosen, *rest.tolist()], dtype=np.int64)
    return RankedRows(rows_K, np.array(scores + [0.0] * len(rest)))


def largest_cosines(samples_MD: Floats, vectors_ND: Floats) -> Doubles:
    """The largest cosine of each sample with any of the rows (N >= 1), rounded: float64[M]."""
    unit_ND = unit_doubles(vectors_ND, "centers")
    largest_M = np.empty(len(samples_MD))
    for part in _parts(len(samples_MD), max(unit_ND.shape)):
        largest_M[part] = (unit_doubles(samples_MD[part], "samples") @ unit_ND.T).max(axis=1)
    return rounded(largest_M)


def mean_direction(vectors_ND: Floats) -> Doubles:
    """The unit mean of rows scaled to unit length, float64[D]; zeros where the mean is zero or N is 0."""
    sum_D: Doubles = unit_doubles(vectors_ND, "vectors").sum(axis=0)
    length = float(np.linalg.norm(sum_D))
    return sum_D / length if length > _LEAST * len(vectors_ND) else np.zeros_like(sum_D)


def unit_doubles(x_ND: npt.NDArray[np.floating], what: str) -> Doubles:
    """Each row divided by its length, float64[N, D]; a zero row stays zero. ValueError for NaN, infinity."""
    unit_ND = x_ND.astype(np.float64)
    with np.errstate(invalid="ignore"):
        length_N = np.sqrt(np.vecdot(unit_ND, unit_ND))
    if not np.isfinite(length_N).all():
        require_finite(x_ND, what)
    unit_ND /= np.maximum(length_N, _TINY)[:, None]
    return unit_ND


@dataclass(frozen=True)
class Evidence:
    """The input of a rule: the descriptions of one category, the samples that guide it, and centroids."""

    vectors_ND: Floats  # the descriptions
    category: int
    samples_MD: Floats  # those that guide the category
    directions_CD: Doubles  # the unit mean of every category's samples
    centroids_CD: Doubles | None  # of every category's texts, or its name
    names_CD: Doubles | None  # every category's name, where the rule has `neighbours`
    nearest_samples: int | None


@dataclass(frozen=True)
class LocalizationRule:
    """A rule that `localize.rule` can name."""

    rank: Callable[[Evidence, int], RankedRows]  # the first k rows
    guided_by: Literal["labels", "pseudo-labels", "none"]  # how samples are assigned to categories
    centroids: Literal["texts", "names"] | None = None  # which centroids it needs
    falls_back: bool = False  # to rule `text`, where no sample gives a category a direction
    uses_nearest: bool = False  # takes `nearest_samples`
    neighbours: bool = False  # needs the encoded names, by which categories are neighbours


def _rank_by_samples(given: Evidence, k: int) -> RankedRows:
    if given.nearest_samples is not None:
        return rank_by_nearest(given.vectors_ND, given.samples_MD, given.nearest_samples, k)
    starts_2 = np.array([0, len(given.vectors_ND)])
    direction_1D = given.directions_CD[given.category][None]
    rows_1K, scores_1K = rank_by_mean(given.vectors_ND, starts_2, direction_1D, k)
    return RankedRows(rows_1K[0], scores_1K[0])


def _rank_by_centroids(given: Evidence, k: int) -> RankedRows:
    assert given.centroids_CD is not None
    return rank_by_distinctness(given.vectors_ND, given.centroids_CD, given.category, k)


def _rank_by_neighbours(given: Evidence, k: int) -> RankedRows:
    assert given.centroids_CD is not None and given.names_CD is not None
    neighbours_X = nearest_names(given.names_CD, given.category)
    return rank_by_neighbours(given.vectors_ND, given.centroids_CD, given.category, neighbours_X, k)


RULES: dict[Rule, LocalizationRule] = {
    "visual": LocalizationRule(_rank_by_samples, "labels", falls_back=True, uses_nearest=True),
    "distinct": LocalizationRule(
        lambda given, k: rank_by_distinctness(given.vectors_ND, given.directions_CD, given.category, k),
        "labels",
        falls_back=True,
    ),
    "text": LocalizationRule(_rank_by_centroids, "none", centroids="texts"),
    "name": LocalizationRule(_rank_by_centroids, "none", centroids="names"),
    "neighbours": LocalizationRule(_rank_by_neighbours, "none", centroids="texts", neighbours=True),
    "diverse": LocalizationRule(
        lambda given, k: rank_by_coverage(given.vectors_ND, given.samples_MD, k), "labels"
    ),
    "pseudo": LocalizationRule(_rank_by_samples, "pseudo-labels", falls_back=True, uses_nearest=True),
}


def _greedy(unit_ND: Doubles, covered_MD: Doubles, chosen: list[int], k: int) -> Iterator[tuple[int, float]]:
    """The rows to choose after `chosen` and the gain of each, until there are k or no row adds anything.

    Lazy greedy: gains only shrink as more is covered (f is submodular), so an old gain bounds the new one,
    and only rows whose bound reaches the best gain of this step are computed again (Minoux, 1978).
    """
    if not chosen:
        score_N = rounded(unit_ND @ covered_MD.mean(axis=0))
        first = int(np.argmax(score_N))  # the first of equal ones
        yield first, float(score_N[first])
        chosen = [first]
    if len(chosen) >= min(k, len(unit_ND)):
        return
    chosen = list(chosen)
    best_M = np.full(len(covered_MD), -np.inf)
    for part in _parts(len(chosen), len(covered_MD)):
        np.maximum(best_M, (unit_ND[chosen[part]] @ covered_MD.T).max(axis=0), out=best_M)

    bound_N = _gains(unit_ND.astype(np.float32), covered_MD.astype(np.float32), best_M.astype(np.float32))
    bound_N += 2 * _float32_error(unit_ND.shape[1])
    bound_N[chosen] = -np.inf
    while len(chosen) < min(k, len(unit_ND)):
        fresh_N = np.zeros(len(unit_ND), dtype=np.bool_)
        gain, row = 0.0, -1
        while True:
            stale_N = np.where(fresh_N, -np.inf, bound_N)
            batch = np.argpartition(stale_N, -min(_BATCH, len(stale_N)))[-_BATCH:]
            # A gain below this bound is less than the best one even after rounding.
            batch = batch[stale_N[batch] > max(gain - _LEAST, 0.0)]
            if len(batch) == 0:
                break
            gain_X = _gains(unit_ND[batch], covered_MD, best_M)
            bound_N[batch] = gain_X + 1e-12
            fresh_N[batch] = True
            gain_X = rounded(gain_X)
            top = batch[gain_X == gain_X.max()].min()
            if (gain_X.max(), -top) > (gain, -row):
                gain, row = float(gain_X.max()), int(top)
        if gain <= 0:
            return
        yield row, gain
        chosen.append(row)
        bound_N[row] = -np.inf
        np.maximum(best_M, covered_MD @ unit_ND[row], out=best_M)


def _gains(
    unit_ND: npt.NDArray[np.floating], covered_MD: npt.NDArray[np.floating], best_M: npt.NDArray[np.floating]
) -> Doubles:
    """What each row would add to the mean over the covered rows of their largest cosine: float64[N]."""
    gain_N = np.empty(len(unit_ND))
    for part in _parts(len(unit_ND), len(covered_MD)):
        more_NM = unit_ND[part] @ covered_MD.T
        more_NM -= best_M
        np.maximum(more_NM, 0, out=more_NM)
        gain_N[part] = more_NM.mean(axis=1, dtype=np.float64)
    return gain_N


def _mean_of_largest(cosine_NM: npt.NDArray[np.floating], count: int) -> Doubles:
    rest = cosine_NM.shape[1] - count
    largest_NM = np.partition(cosine_NM, rest, axis=1)[:, rest:] if rest else cosine_NM
    mean_N: Doubles = largest_NM.mean(axis=1, dtype=np.float64)
    return mean_N


def _float32_error(dim: int) -> float:
    """A bound on the error of a float32 product of two unit rows of `dim` values, each rounded to float32.

    Rounding the two rows counts as two more values; 1% is added for rows not exactly of unit length.
    """
    return 1.01 * largest_error(dim + 2, 0.0)


def _slack(kth: npt.NDArray[np.floating], dim: int) -> npt.NDArray[np.floating]:
    """How far below the k-th largest screening value a row's value may lie if the row is one of the first k.

    Both values are wrong by up to the float32 error and their rows' lengths, and rounding may make them tie.
    """
    slack: npt.NDArray[np.floating] = 1.01 * (
        2 * _float32_error(dim) + 2 * NORM_TOLERANCE * np.abs(kth) + _LEAST
    )
    return slack


def _still_possible(screen_N: npt.NDArray[np.floating], k: int, dim: int) -> Ints:
    """The rows that may be among the first k, ascending."""
    if k >= len(screen_N):
        return np.arange(len(screen_N))
    kth = np.partition(screen_N, -k)[-k]
    possible_X: Ints = (screen_N >= kth - _slack(kth, dim)).nonzero()[0]
    return possible_X


def _best(rows_X: Ints, score_X: Doubles, k: int) -> RankedRows:
    """The first k by their score, which is rounded in place, for rows in ascending order."""
    rounded(score_X)
    order_K = np.argsort(-score_X, kind="stable")[:k]
    return RankedRows(rows_X[order_K], score_X[order_K])


def _parts(n: int, width: int) -> Iterator[slice]:
    """`range(n)` in slices whose float64 rows of `width` values fill at most `_CELLS` cells."""
    step = max(1, _CELLS // max(1, width))
    return (slice(start, start + step) for start in range(0, n, step))
