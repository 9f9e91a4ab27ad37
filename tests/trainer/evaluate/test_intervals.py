"""Bootstrap intervals against naive loops, exact tests against SciPy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from trainer.evaluate.intervals import (
    holm,
    interval_of,
    lead,
    mcnemar,
    resampled,
    share_interval,
    sum_by_object,
    swap_test,
)


def _answers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two ways of answering n questions about objects, some alone; those of one object are alike."""
    rng = np.random.default_rng(seed)
    object_N = rng.integers(-1, n // 4, size=n)
    luck_N = np.where(object_N < 0, rng.random(n), rng.random(n // 4 + 1)[object_N])
    return luck_N + 0.3 * rng.random(n) < 0.8, luck_N + 0.3 * rng.random(n) < 0.7, object_N


def test_the_interval_is_that_of_a_naive_loop() -> None:
    """Drawing object by object and averaging over samples gives the same interval, but for luck."""
    first_N, second_N, object_N = _answers(120, 0)
    found = lead(first_N, second_N, object_N, resamples=20_000, seed=1)
    assert found.value == pytest.approx(first_N.mean() - second_N.mean())
    groups = [np.flatnonzero(object_N == o) for o in np.unique(object_N[object_N >= 0])]
    groups += [np.array([i]) for i in np.flatnonzero(object_N < 0)]
    rng = np.random.default_rng(2)
    ahead_N = first_N.astype(float) - second_N
    means = [
        ahead_N[np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])].mean()
        for _ in range(8000)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_objects_widen_the_interval_of_samples_that_agree() -> None:
    """Eight equal answers about one object are one answer: the interval is as wide as without the copies."""
    first_N, second_N, _ = _answers(60, 3)
    once = lead(first_N, second_N, np.full(60, -1), resamples=5000, seed=0)
    copied = (np.repeat(first_N, 8), np.repeat(second_N, 8))
    eight = lead(*copied, np.repeat(np.arange(60), 8), resamples=5000, seed=0)
    naive = lead(*copied, np.full(480, -1), resamples=5000, seed=0)
    assert (eight.low, eight.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (eight.high - eight.low)


def test_sums_by_object_keep_samples_without_one_apart() -> None:
    """Rows of one object are added; each row of -1 stands alone, after them."""
    sums_OK = sum_by_object(np.arange(10).reshape(5, 2), np.array([3, -1, 3, 1, -1]))
    assert sums_OK.tolist() == [[6, 7], [4, 6], [2, 3], [8, 9]]


def test_draws_are_whole_objects_and_the_seed_decides() -> None:
    """Every resample has as many objects as there are; blocks of draws and seeds repeat."""
    sums_OK = np.column_stack([np.ones(9), np.arange(9.0)])
    drawn_BK = resampled(sums_OK, resamples=50, seed=4)
    assert (drawn_BK[:, 0] == 9).all()
    assert (drawn_BK == resampled(sums_OK, resamples=50, seed=4)).all()
    assert (drawn_BK != resampled(sums_OK, resamples=50, seed=5)).any()
    with pytest.raises(ValueError, match="no objects"):
        resampled(np.zeros((0, 2)), resamples=5, seed=0)


def test_values_that_are_no_number_do_not_count() -> None:
    """A resample without a single question has no share."""
    assert interval_of(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no resample"):
        interval_of(np.array([np.nan]))


@pytest.mark.parametrize(
    ("b", "c"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 71), (900, 1100), (20_000, 20_400)]
)
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    """p is that of scipy's two-sided binomial test on the samples that only one gets right."""
    first_N = np.array([True] * b + [False] * c + [True] * 7)
    second_N = np.array([False] * b + [True] * c + [True] * 7)
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(first_N, second_N) == pytest.approx(expected, rel=1e-7)


def _mean(shares: np.ndarray) -> np.ndarray:
    return np.asarray(shares.mean(axis=-1))


def _worst(shares: np.ndarray) -> np.ndarray:
    return np.asarray(shares.min(axis=-1))


@pytest.mark.parametrize("statistic", [_mean, _worst])
def test_swapping_agrees_with_all_exchanges(statistic: Callable[[np.ndarray], np.ndarray]) -> None:
    """p is the share of the 1,024 exchanges of ten objects that set the two as far apart, but for luck."""
    rng = np.random.default_rng(1)
    hits_OG, others_OG = rng.integers(0, 3, (10, 3)) / 1.0, rng.integers(0, 4, (10, 3)) / 1.0
    n_G = np.array([40.0, 50.0, 60.0])
    apart = []
    for exchanged in product([False, True], repeat=10):
        swap_O1 = np.array(exchanged)[:, None]
        first_OG, second_OG = np.where(swap_O1, others_OG, hits_OG), np.where(swap_O1, hits_OG, others_OG)
        apart.append(float(statistic(second_OG.sum(axis=0) / n_G) - statistic(first_OG.sum(axis=0) / n_G)))
    exact = np.mean(np.abs(apart) >= abs(apart[0]) - 1e-12)
    p = swap_test(hits_OG, others_OG, n_G, statistic, resamples=40_000, seed=0)
    assert p == pytest.approx(exact, abs=0.01)
    if statistic is _mean:
        ahead_O = ((others_OG - hits_OG) / n_G).sum(axis=1)
        reference = permutation_test(
            (ahead_O, np.zeros(10)),
            lambda a, b, axis: np.sum(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert exact == pytest.approx(reference.pvalue)


def test_a_few_answers_that_differ_prove_nothing() -> None:
    """Four objects on which one way is ahead: two of sixteen exchanges; none at all: p is 1."""
    none_OG, all_OG, n_G = np.zeros((4, 1)), np.ones((4, 1)), np.array([100.0])
    assert swap_test(none_OG, all_OG, n_G, _mean, resamples=20_000, seed=0) == pytest.approx(1 / 8, abs=0.01)
    assert swap_test(all_OG, all_OG, n_G, _mean, resamples=10, seed=0) == 1.0


def test_holm_steps_down() -> None:
    """The smallest p is multiplied by their number, the next by one fewer, and none falls below another."""
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("hits", "n"), [(30, 40), (3, 40), (200, 1000)])
def test_agrees_with_resampling_hit_by_hit(hits: int, n: int) -> None:
    """Binomial draws give the interval of drawing the hits themselves with replacement."""
    hits_N = np.arange(n) < hits
    rng = np.random.default_rng(7)
    means = np.array([rng.choice(hits_N, size=n).mean() for _ in range(4000)])
    low, high = share_interval(hits_N, resamples=40_000, seed=0)
    step = 1 / n  # shares come in steps of one hit
    assert low == pytest.approx(np.quantile(means, 0.025), abs=1.01 * step)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=1.01 * step)


def test_the_seed_decides() -> None:
    """Same seed, same interval."""
    hits_N = np.arange(50) < 20
    assert share_interval(hits_N, resamples=100, seed=3) == share_interval(hits_N, resamples=100, seed=3)
    assert share_interval(hits_N, resamples=100, seed=3) != share_interval(hits_N, resamples=100, seed=4)


def test_certainty_has_no_width_and_nothing_is_refused() -> None:
    """All hits resample to all hits; of no samples nothing can be said."""
    assert share_interval(np.ones(5, dtype=bool), resamples=100, seed=0) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no samples"):
        share_interval(np.zeros(0, dtype=bool), resamples=100, seed=0)
