"""Intervals by resampling."""

from __future__ import annotations

import numpy as np

from trainer.records import Bools


def interval(hits_N: Bools, *, resamples: int, seed: int) -> tuple[float, float]:
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
