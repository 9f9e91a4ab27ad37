"""Each rule against a plain loop in float64 that shares no code with it, on random and adversarial rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from trainer.localize.rules import (
    NORM_TOLERANCE,
    RULES,
    largest_cosines,
    mean_direction,
    nearest_names,
    rank_by_coverage,
    rank_by_distinctness,
    rank_by_mean,
    rank_by_nearest,
    rank_by_neighbours,
)
from trainer.settings import Rule

Ranking = list[tuple[int, float]]
SIZES = (1, 2, 7, 60, 300)
DIM = 24


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine by its definition, without a BLAS; 0 where a row is zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = math.sqrt(math.fsum(a * a)) * math.sqrt(math.fsum(b * b))
    return math.fsum(a * b) / lengths if lengths > 0 else 0.0


def _best(scores: list[float], k: int) -> Ranking:
    ranked = sorted(enumerate(scores), key=lambda item: (-round(item[1], 9), item[0]))
    return [(row, round(score, 9)) for row, score in ranked[:k]]


def _by_mean(x_ND: np.ndarray, guide_D: np.ndarray, k: int) -> Ranking:
    return _best([_cosine(x_D, guide_D) for x_D in x_ND], k)


def _by_nearest(x_ND: np.ndarray, samples_MD: np.ndarray, nearest: int, k: int) -> Ranking:
    scores = []
    for x_D in x_ND:
        cosines = sorted((_cosine(x_D, sample_D) for sample_D in samples_MD), reverse=True)[:nearest]
        scores.append(math.fsum(cosines) / len(cosines))
    return _best(scores, k)


def _by_distinctness(x_ND: np.ndarray, centroids_CD: np.ndarray, own: int, k: int) -> Ranking:
    scores = []
    for x_D in x_ND:
        rivals = [_cosine(x_D, c_D) for c, c_D in enumerate(centroids_CD) if c != own and c_D.any()]
        scores.append(_cosine(x_D, centroids_CD[own]) - (max(rivals) if rivals else 0.0))
    return _best(scores, k)


def _by_neighbours(
    x_ND: np.ndarray, centroids_CD: np.ndarray, own: int, rivals: list[int], k: int
) -> Ranking:
    scores = []
    for x_D in x_ND:
        cosines = [_cosine(x_D, centroids_CD[c]) for c in rivals if centroids_CD[c].any()]
        mean = math.fsum(cosines) / len(cosines) if cosines else 0.0
        scores.append(_cosine(x_D, centroids_CD[own]) - mean)
    return _best(scores, k)


def _by_coverage(x_ND: np.ndarray, samples_MD: np.ndarray, k: int) -> Ranking:
    """Every gain of every step, from the sums themselves."""
    chosen: Ranking = []
    for covered in [samples_MD, x_ND] if len(samples_MD) else [x_ND]:
        cosines = [[_cosine(x_D, y_D) for y_D in covered] for x_D in x_ND]

        def value(rows: list[int], cosines: list[list[float]] = cosines) -> float:
            return math.fsum(map(max, zip(*(cosines[row] for row in rows), strict=True))) if rows else 0.0

        while len(chosen) < min(k, len(x_ND)):
            rows = [row for row, _ in chosen]
            gains = {
                row: round((value([*rows, row]) - value(rows)) / len(covered), 9)
                for row in range(len(x_ND))
                if row not in rows
            }
            row = min(gains, key=lambda row: (-gains[row], row))
            if rows and gains[row] <= 0:
                break
            chosen.append((row, gains[row]))
    rest = [row for row in range(len(x_ND)) if row not in [row for row, _ in chosen]]
    return chosen + [(row, 0.0) for row in rest[: k - len(chosen)]]


def _rows(rng: np.random.Generator, n: int, kind: str) -> np.ndarray:
    """Rows as the store holds them: float16 values, of unit length but for rounding and its tolerance."""
    if kind == "near ties":  # float32 rows whose cosines lie 1e-8 apart or less: a float32 product sees none
        x_ND = np.tile(np.eye(DIM, dtype=np.float32)[0], (n, 1))
        x_ND[:, -1] = 1e-7 * rng.permutation(n)
        return x_ND
    x_ND = rng.normal(size=(n, DIM))
    if kind == "close":  # all scores within the screening error
        x_ND = np.ones(DIM) + 1e-3 * x_ND
    if kind == "duplicates":
        x_ND = x_ND[rng.integers(0, max(1, n // 4), n)]
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True)
    x_ND *= 1 + 1e-3 * rng.uniform(-1, 1, size=(n, 1))
    if kind == "zeros":
        x_ND[rng.random(n) < 0.5] = 0
    return x_ND.astype(np.float16).astype(np.float32)


def _ranking(rows_K: np.ndarray, scores_K: np.ndarray) -> Ranking:
    return list(zip(rows_K.tolist(), scores_K.tolist(), strict=True))


KINDS = pytest.mark.parametrize("kind", ["random", "close", "near ties", "duplicates", "zeros"])
KS = pytest.mark.parametrize("k", [1, 5, 50, 10**6])


@KINDS
@KS
def test_the_mean_ranks_like_a_plain_loop(kind: str, k: int) -> None:
    """Many categories of unequal size, an empty one and one without a guide: the loop's rows and scores."""
    rng = np.random.default_rng(k)
    sizes = [*SIZES, 0, *SIZES[::-1], 40]
    starts_C1 = np.cumsum([0, *sizes])
    x_ND, guides_CD = _rows(rng, sum(sizes), kind), 3 * rng.normal(size=(len(sizes), DIM))
    guides_CD[-1] = 0
    rows_CK, scores_CK = rank_by_mean(x_ND, starts_C1, guides_CD, k)
    assert rows_CK.shape == scores_CK.shape == (len(sizes), min(k, max(SIZES)))
    for c, size in enumerate(sizes):
        expected = _by_mean(x_ND[starts_C1[c] : starts_C1[c + 1]], guides_CD[c], k)
        count = len(expected)
        assert _ranking(rows_CK[c, :count] - starts_C1[c], scores_CK[c, :count]) == expected
        assert count == min(k, size)
        assert (rows_CK[c, count:] == -1).all()
        assert np.isnan(scores_CK[c, count:]).all()


@KINDS
@KS
@pytest.mark.parametrize("nearest", [1, 3, 100])
def test_the_nearest_samples_rank_like_a_plain_loop(kind: str, k: int, nearest: int) -> None:
    """The mean of the largest cosines, of all where there are fewer samples than asked for."""
    rng = np.random.default_rng(nearest)
    samples_MD = _rows(rng, 9, kind)
    for n in SIZES:
        x_ND = _rows(rng, n, kind)
        found = rank_by_nearest(x_ND, samples_MD, nearest, k)
        assert _ranking(*found) == _by_nearest(x_ND, samples_MD, nearest, k)


@KINDS
@KS
@pytest.mark.parametrize("categories", [1, 3, 80])
def test_distinctness_ranks_like_a_plain_loop(kind: str, k: int, categories: int) -> None:
    """With no rival, with few, and with so many that the likeliest ones screen; zero centroids are none."""
    rng = np.random.default_rng(categories)
    centroids_CD = np.stack([mean_direction(_rows(rng, 5, kind)) for _ in range(categories)])
    centroids_CD[1:2] = 0
    for n in SIZES:
        x_ND = _rows(rng, n, kind)
        found = rank_by_distinctness(x_ND, centroids_CD, 0, k)
        assert _ranking(*found) == _by_distinctness(x_ND, centroids_CD, 0, k)


@KINDS
@KS
@pytest.mark.parametrize("categories", [1, 3, 20])
def test_neighbours_rank_like_a_plain_loop(kind: str, k: int, categories: int) -> None:
    """Without a neighbour, with fewer than five, with five of many; one of them has no text."""
    rng = np.random.default_rng(categories)
    centroids_CD = np.stack([mean_direction(_rows(rng, 5, kind)) for _ in range(categories)])
    centroids_CD[1:2] = 0
    names_CD = np.stack([mean_direction(_rows(rng, 1, "random")) for _ in range(categories)])
    names_CD[1:2] = names_CD[0]  # the nearest of all
    others = range(1, categories)
    rivals = sorted(others, key=lambda c: (-round(_cosine(names_CD[0], names_CD[c]), 9), c))[:5]
    neighbours_X = nearest_names(names_CD, 0)
    assert neighbours_X.tolist() == rivals
    for n in SIZES:
        x_ND = _rows(rng, n, kind)
        found = rank_by_neighbours(x_ND, centroids_CD, 0, neighbours_X, k)
        assert _ranking(*found) == _by_neighbours(x_ND, centroids_CD, 0, rivals, k)


def test_equal_names_are_neighbours_in_their_order() -> None:
    """Ties go to the lower index, and no category is its own neighbour."""
    names_CD = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float64)
    assert nearest_names(names_CD, 2).tolist() == [1, 3, 0, 4]
    assert nearest_names(np.tile(names_CD[1], (9, 1)), 0).tolist() == [1, 2, 3, 4, 5]


@KINDS
@pytest.mark.parametrize("k", [1, 5, 12, 10**6])
@pytest.mark.parametrize("samples", [0, 1, 6])
def test_coverage_chooses_like_a_plain_loop(kind: str, k: int, samples: int) -> None:
    """The greedy choice from all gains of all steps, past the samples and past the category's own rows."""
    rng = np.random.default_rng(samples)
    samples_MD = _rows(rng, samples, kind)
    for n in (1, 2, 7, 30):
        x_ND = _rows(rng, n, kind)
        assert _ranking(*rank_by_coverage(x_ND, samples_MD, k)) == _by_coverage(x_ND, samples_MD, k)


def test_coverage_leaves_repetitions_for_last() -> None:
    """Of two kinds of samples, both are covered before the better-scoring kind gets a second center."""
    x_ND = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1]], dtype=np.float32)
    samples_MD = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert rank_by_coverage(x_ND, samples_MD, 2).rows_K.tolist() == [1, 3]
    assert rank_by_nearest(x_ND, samples_MD, 4, 2).rows_K.tolist() == [1, 0]


def test_coverage_scores_sum_to_the_mean_cosine_with_the_nearest_center() -> None:
    """While samples are covered, the scores' sum is what the objective is at that point."""
    rng = np.random.default_rng(0)
    x_ND, samples_MD = _rows(rng, 80, "random"), _rows(rng, 50, "random")
    rows_K, scores_K = rank_by_coverage(x_ND, samples_MD, 10)
    nearest = [max(_cosine(x_ND[row], sample_D) for row in rows_K) for sample_D in samples_MD]
    assert scores_K.sum() == pytest.approx(np.mean(nearest), abs=1e-8)


def test_what_float32_cannot_tell_apart_is_told_apart() -> None:
    """Cosines 1e-8 apart, in an order that float32 products lose."""
    rng = np.random.default_rng(0)
    order = rng.permutation(200)
    x_ND = np.tile(np.eye(DIM, dtype=np.float32)[0], (200, 1))
    x_ND[order, 1] = 2e-8 * np.arange(200, 0, -1)
    guide_D = np.eye(DIM)[0] + np.eye(DIM)[1]
    assert len(set((x_ND @ guide_D.astype(np.float32)).tolist())) < 40
    rows_1K, _ = rank_by_mean(x_ND, np.array([0, 200]), guide_D[None], 50)
    assert rows_1K[0].tolist() == order[:50].tolist()


def test_rows_of_another_length_are_no_reason_for_other_scores() -> None:
    """Rows as far from unit length as is allowed, the worse the longer: the cosine decides."""
    angles_N = np.linspace(0, 0.02, 100)
    lengths_N = np.linspace(1 - NORM_TOLERANCE, 1 + NORM_TOLERANCE, 100)
    x_ND = np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1) * lengths_N[:, None]
    rows_1K, _ = rank_by_mean(x_ND.astype(np.float32), np.array([0, 100]), np.array([[1.0, 0.0]]), 10)
    assert rows_1K[0].tolist() == list(range(10))


def test_no_category_and_no_row() -> None:
    """Nothing to rank is no error."""
    for starts_C1 in (np.zeros(1, np.int64), np.zeros(3, np.int64)):
        guides_CD = np.ones((len(starts_C1) - 1, DIM))
        rows_CK, scores_CK = rank_by_mean(np.zeros((0, DIM), np.float32), starts_C1, guides_CD, 5)
        assert rows_CK.shape == scores_CK.shape == (len(guides_CD), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "rank",
    [
        lambda x_ND, y_ND: rank_by_mean(x_ND, np.array([0, 30]), y_ND[:1], 5),
        lambda x_ND, y_ND: rank_by_nearest(x_ND, y_ND, 2, 5),
        lambda x_ND, y_ND: rank_by_distinctness(x_ND, y_ND.astype(np.float64), 0, 5),
        lambda x_ND, y_ND: rank_by_neighbours(x_ND, y_ND.astype(np.float64), 0, np.array([1, 2]), 5),
        lambda x_ND, y_ND: rank_by_coverage(x_ND, y_ND, 5),
    ],
    ids=["mean", "nearest", "distinctness", "neighbours", "coverage"],
)
def test_nan_and_infinity_are_refused(rank: Callable[..., object], bad: float) -> None:
    """A value that compares with nothing is named by its row, even where its guide's value is zero."""
    rng = np.random.default_rng(0)
    x_ND, guides_ND = _rows(rng, 30, "random"), np.eye(DIM, dtype=np.float32)
    x_ND[17, 3] = bad
    with pytest.raises(ValueError, match="descriptions: row 17 holds NaN or infinite values"):
        rank(x_ND, guides_ND)


def test_nan_is_refused_in_guides_and_by_many_threads() -> None:
    """A guide's NaN is named as the guide's, and a row's by a thread reaches the caller."""
    x_ND, guides_CD = np.tile(np.eye(DIM, dtype=np.float32), (40, 1)), np.ones((40, DIM))
    starts_C1 = np.arange(0, len(x_ND) + 1, DIM)
    guides_CD[30, 2] = np.nan
    with pytest.raises(ValueError, match="guides: row 30 holds NaN or infinite values"):
        rank_by_mean(x_ND, starts_C1, guides_CD, 5)
    x_ND[35 * DIM + 7, 3] = np.nan
    with pytest.raises(ValueError, match="descriptions: row 847 holds NaN or infinite values"):
        rank_by_mean(x_ND, starts_C1, np.ones((40, DIM)), 5)
    with pytest.raises(ValueError, match="of unit length, or zero"):
        rank_by_mean(np.full((9, DIM), 1e30, np.float32), np.array([0, 9]), np.ones((1, DIM)), 5)


def test_the_largest_cosines_are_those_of_a_plain_loop() -> None:
    """Each sample's nearest center, by its cosine."""
    rng = np.random.default_rng(0)
    samples_MD, x_ND = _rows(rng, 40, "zeros"), _rows(rng, 9, "random")
    expected = [round(max(_cosine(sample_D, x_D) for x_D in x_ND), 9) for sample_D in samples_MD]
    assert largest_cosines(samples_MD, x_ND).tolist() == expected


def test_what_cancels_out_has_no_direction() -> None:
    """The mean of opposite rows is zero, and so is that of zero rows and of none; else it is a unit."""
    x_ND = np.array([[3, 4], [-3, -4]], dtype=np.float32)
    assert mean_direction(x_ND).tolist() == [0, 0]
    assert mean_direction(0 * x_ND).tolist() == [0, 0]
    assert mean_direction(x_ND[:0]).tolist() == [0, 0]
    assert mean_direction(x_ND[:1]) == pytest.approx([0.6, 0.8])


def test_every_rule_of_the_settings_has_a_function() -> None:
    """`localize.rule` takes exactly the names in `RULES`."""
    assert set(RULES) == set(get_args(Rule))
