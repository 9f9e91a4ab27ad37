"""Differences between two ways of answering the same questions: paired intervals and exact tests.

Samples of one object are not independent of each other, so objects are drawn, not samples. Shapes: N samples,
O objects, K columns, B resamples, U kinds of objects that differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.records import Bools, Doubles, Ints

_CELLS = 2**22  # draws that are held at a time
_EXACT = 1000  # samples whose binomial coefficients are added as whole numbers


@dataclass(frozen=True)
class Lead:
    """How far the first of two is ahead, on the same samples."""

    value: float  # difference of the shares that are right
    low: float  # of the 95% paired bootstrap interval
    high: float
    p: float  # exact McNemar, two-sided

    def named(self, prefix: str = "lead") -> dict[str, float]:
        """The numbers as keys of a row."""
        return {prefix: self.value, f"{prefix}_low": self.low, f"{prefix}_high": self.high, "p": self.p}


def lead(first_N: Bools, second_N: Bools, object_N: Ints, *, resamples: int, seed: int) -> Lead:
    """How much more often `first_N` is right than `second_N` on the same samples.

    The interval is the 95% percentile one of the bootstrap over objects (see `resampled`); -1 in `object_N`
    is an object of its own. p treats samples as independent (McNemar, Psychometrika 1947).
    """
    ahead_N = first_N.astype(np.int64) - second_N.astype(np.int64)
    sums_OK = sum_by_object(np.stack([ahead_N, np.ones_like(ahead_N)], axis=1), object_N)
    drawn_BK = resampled(sums_OK, resamples=resamples, seed=seed)
    low, high = interval_of(drawn_BK[:, 0] / drawn_BK[:, 1])
    return Lead(float(ahead_N.mean()), low, high, mcnemar(first_N, second_N))


def sum_by_object(values_NK: npt.NDArray[np.generic], object_N: Ints) -> Doubles:
    """The sum of the rows of each object, objects by number and then the samples without one: [O, K]."""
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
    rows are one kind; drawing the number of each kind is a multinomial draw, the same distribution at a
    fraction of the cost. Raises ValueError for no objects.
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
    """The 95% percentile interval of resampled values; those that are not a number (0 / 0) do not count.

    Raises ValueError where none is a number.
    """
    drawn_B = drawn_B[~np.isnan(drawn_B)]
    if len(drawn_B) == 0:
        raise ValueError("no resample has a value")
    low, high = np.quantile(drawn_B, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(first_N: Bools, second_N: Bools) -> float:
    """The exact two-sided p of McNemar's test: of samples that only one gets right, is each as likely to?

    With b and c such samples, min(1, 2 · P(X ≤ min(b, c))) where X is Binomial(b + c, 1/2); 1 where nothing
    differs.
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
        if term <= 1e-17 * total:  # they fall faster and faster
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
    """The two-sided p of two ways' difference in a statistic of G shares, were they interchangeable.

    `hits_OG` and `others_OG` count what each way got right about an object, of `n_G` in all; `statistic` maps
    shares [..., G] to numbers [...]. The two ways' answers about each object are exchanged or not, at random:
    a paired permutation test (Fisher 1935; Good, Permutation Tests, 2005, section 3.7), its p with the usual
    one added to both counts. Objects about which both say the same do not matter.
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
    """p-values corrected for being several, in their order (Holm, Scandinavian J. of Statistics 1979)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def share_interval(hits_N: Bools, *, resamples: int, seed: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a share (Efron 1979; Efron and Tibshirani 1993, chapter 13).

    Drawing N of N hits and misses with replacement and counting the hits is drawing from Binomial(N, share):
    the resamples are drawn as such, which is the same distribution at none of the cost. A share of 0 or 1 has
    an interval of no width; with few samples that says little. Raises ValueError for no samples.
    """
    if len(hits_N) == 0:
        raise ValueError("no samples to resample")
    counts = np.random.default_rng(seed).binomial(len(hits_N), hits_N.mean(), size=resamples)
    low, high = np.quantile(counts / len(hits_N), (0.025, 0.975))
    return float(low), float(high)
