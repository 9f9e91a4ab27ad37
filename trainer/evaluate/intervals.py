"""Bootstrap intervals of shares and of paired differences, and exact paired tests.

Samples of one object are not independent, so paired intervals and tests resample objects, not samples.
Shapes: N samples, O objects, K columns, B resamples, U distinct rows of objects, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.records import Bools, Doubles, Ints

_CELLS = 2**22  # draws in memory at a time
_EXACT = 1000  # up to this many samples, binomial coefficients are summed as integers


def share_interval(hits_N: Bools, *, resamples: int, seed: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a share (Efron 1979; Efron and Tibshirani 1993, chapter 13).

    The number of hits in N draws with replacement is Binomial(N, share), so resamples are drawn from that:
    the same distribution at almost no cost. A share of 0 or 1 has an interval of width 0, which says little
    where samples are few. Raises ValueError for no samples.
    """
    if len(hits_N) == 0:
        raise ValueError("no samples to resample")
    counts = np.random.default_rng(seed).binomial(len(hits_N), hits_N.mean(), size=resamples)
    low, high = np.quantile(counts / len(hits_N), (0.025, 0.975))
    return float(low), float(high)


def harmonic_mean(first: float, second: float) -> float:
    """2ab / (a + b); 0 where both are 0."""
    return 0.0 if first + second == 0 else float(2 * first * second / (first + second))


@dataclass(frozen=True)
class Lead:
    """How far the first of two models is ahead of the second on the same samples."""

    value: float  # difference of the shares that are right
    low: float  # of the 95% paired bootstrap interval
    high: float
    p: float  # exact McNemar, two-sided

    def as_row(self, prefix: str = "lead") -> dict[str, float]:
        """The numbers, by the keys that they have in rows of metrics."""
        return {prefix: self.value, f"{prefix}_low": self.low, f"{prefix}_high": self.high, "p": self.p}


def lead(first_N: Bools, second_N: Bools, object_N: Ints, *, resamples: int, seed: int) -> Lead:
    """How much more often `first_N` is right than `second_N` on the same samples.

    The interval is the 95% percentile interval of the bootstrap over objects (see `resampled`); each -1 in
    `object_N` is a separate object. p treats samples as independent (McNemar, Psychometrika 1947).
    """
    ahead_N = first_N.astype(np.int64) - second_N.astype(np.int64)
    sums_OK = sum_by_object(np.stack([ahead_N, np.ones_like(ahead_N)], axis=1), object_N)
    drawn_BK = resampled(sums_OK, resamples=resamples, seed=seed)
    low, high = interval_of(drawn_BK[:, 0] / drawn_BK[:, 1])
    return Lead(float(ahead_N.mean()), low, high, mcnemar(first_N, second_N))


def sum_by_object(values_NK: npt.NDArray[np.generic], object_N: Ints) -> Doubles:
    """The sum of each object's rows: [O, K]; objects by number, then one row per sample without an object."""
    alone_N = object_N < 0
    place_N = np.empty(len(object_N), dtype=np.int64)
    objects, place_N[~alone_N] = np.unique(object_N[~alone_N], return_inverse=True)
    place_N[alone_N] = len(objects) + np.arange(int(alone_N.sum()))
    sums_OK = np.zeros((len(objects) + int(alone_N.sum()), values_NK.shape[1]))
    np.add.at(sums_OK, place_N, values_NK)
    return sums_OK


def resampled(sums_OK: Doubles, *, resamples: int, seed: int) -> Doubles:
    """The sums over O objects drawn with replacement from O, `resamples` times: float64[B, K].

    A cluster bootstrap (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8): a
    share is the ratio of two of the sums, so that objects with many samples weigh more. Objects with equal
    rows are drawn together, by a multinomial draw of their number: the same distribution at a fraction of the
    cost. Raises ValueError for no objects.
    """
    if len(sums_OK) == 0:
        raise ValueError("no objects to resample")
    kinds_UK, counts_U = np.unique(sums_OK, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(kinds_UK))
    drawn = [
        rng.multinomial(len(sums_OK), counts_U / len(sums_OK), size=min(step, resamples - first)) @ kinds_UK
        for first in range(0, resamples, step)
    ]
    return np.concatenate(drawn)


def interval_of(drawn_B: Doubles) -> tuple[float, float]:
    """The 95% percentile interval of resampled values, without those that are NaN (0 / 0).

    Raises ValueError where all are NaN.
    """
    drawn_B = drawn_B[~np.isnan(drawn_B)]
    if len(drawn_B) == 0:
        raise ValueError("no resample has a value")
    low, high = np.quantile(drawn_B, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(first_N: Bools, second_N: Bools) -> float:
    """The exact two-sided p of McNemar's test on the samples that only one of two models gets right.

    With b and c such samples, min(1, 2 · P(X ≤ min(b, c))) where X is Binomial(b + c, 1/2); 1 where the two
    never differ.
    """
    b, c = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    n, fewer = b + c, min(b, c)
    if n <= _EXACT:
        return float(min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n))
    term = math.exp(
        math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    )
    total = 0.0
    for i in range(fewer, -1, -1):
        total += term
        term *= i / (n - i + 1)
        if term <= 1e-17 * total:  # all later terms are smaller
            break
    return min(1.0, 2 * total)


def swap_test(
    hits_OG: Doubles,
    others_OG: Doubles,
    n_G: Doubles,
    statistic: Callable[[Doubles], Doubles],
    *,
    resamples: int,
    seed: int,
) -> float:
    """The two-sided p of two models' difference in a statistic of G shares, if they were interchangeable.

    `hits_OG` and `others_OG` count what each model got right about an object, of `n_G` in all; `statistic`
    maps shares [..., G] to numbers [...]. The two models' counts for each object are swapped or not, at
    random: a paired permutation test (Fisher 1935; Good, Permutation Tests, 2005, section 3.7); p has the
    usual one added to both counts. Objects with equal counts do not matter and are left out.
    """
    ahead_OG = others_OG - hits_OG
    ahead_OG = ahead_OG[ahead_OG.any(axis=1)]
    hits_G, others_G = hits_OG.sum(axis=0), others_OG.sum(axis=0)
    observed = abs(float(statistic(others_G / n_G) - statistic(hits_G / n_G)))
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // max(1, len(ahead_OG)))
    extreme = 0
    for first in range(0, resamples, step):
        swaps_BO = rng.integers(0, 2, size=(min(step, resamples - first), len(ahead_OG)))
        moved_BG = swaps_BO @ ahead_OG
        apart_B = statistic((others_G - moved_BG) / n_G) - statistic((hits_G + moved_BG) / n_G)
        extreme += int((np.abs(apart_B) >= observed - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm, Scandinavian J. of Statistics 1979), in order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
