"""Means over seeds, with intervals, and paired differences of variants.

Both the test objects and the seeds are random samples, so one bootstrap resamples both, crossed. Shapes:
S seeds, O objects, G groups (modalities, or pairs of them), R resamples, X any values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluate.intervals import interval_of
from trainer.records import Doubles, Ints

# The 97.5% quantile of Student's t with 1, 2, … degrees of freedom.
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)
_NORMAL = 1.960


@dataclass(frozen=True)
class Hits:
    """The number of hits of a variant for each seed, object and group."""

    objects: tuple[str, ...]
    groups: tuple[str, ...]
    hits_SOG: Doubles
    asked_OG: Doubles  # the number of samples or queries: the same for every seed
    worst: bool = False  # the value is that of the lowest group, not the mean over groups

    def values(self) -> list[float]:
        """The value of each seed."""
        return [float(v) for v in self._of(self.hits_SOG.sum(axis=1) / self.asked_OG.sum(axis=0))]

    def _of(self, shares_XG: Doubles) -> Doubles:
        values_X: Doubles = shares_XG.min(axis=-1) if self.worst else shares_XG.mean(axis=-1)
        return values_X

    def drawn(self, seeds_RS: Ints, objects_RO: Ints) -> Doubles:
        """The value of every resample, given how often it has each seed and each object: float64[R]."""
        hits_RG = np.zeros((len(objects_RO), len(self.groups)))
        for s, hits_OG in enumerate(self.hits_SOG):
            hits_RG += seeds_RS[:, s : s + 1] * (objects_RO @ hits_OG)
        asked_RG = seeds_RS.sum(axis=1, keepdims=True) * (objects_RO @ self.asked_OG)
        with np.errstate(invalid="ignore"):
            return self._of(hits_RG / asked_RG)

    def sharing(self, other: Hits) -> Hits:
        """Only the groups and objects that `other` has as well."""
        shared_groups, shared_objects = set(other.groups), set(other.objects)
        groups = [g for g, name in enumerate(self.groups) if name in shared_groups]
        objects = [o for o, name in enumerate(self.objects) if name in shared_objects]
        return Hits(
            tuple(self.objects[o] for o in objects),
            tuple(self.groups[g] for g in groups),
            self.hits_SOG[:, objects][:, :, groups],
            self.asked_OG[objects][:, groups],
            self.worst,
        )


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def estimate(hits: Hits, *, resamples: int, seed: int) -> Estimate:
    """The mean over the seeds, with the 95% percentile interval of resampled seeds and objects.

    Every resample draws S of the S seeds and O of the O objects with replacement, the same objects for all
    seeds (the "pigeonhole" bootstrap of two crossed factors: Owen, Annals of Applied Statistics 2007).
    """
    low, high = interval_of(hits.drawn(*_draws(hits, resamples, seed)))
    return Estimate(float(np.mean(hits.values())), low, high)


def difference(hits: Hits, reference: Hits, *, resamples: int, seed: int) -> Estimate | None:
    """How far a variant is above a reference on the groups and objects of both; None if they share none.

    Both are resampled with the same seeds and objects. Raises ValueError for different numbers of seeds.
    """
    if len(hits.hits_SOG) != len(reference.hits_SOG):
        raise ValueError(
            f"the variant has {len(hits.hits_SOG)} seeds and the reference {len(reference.hits_SOG)}"
        )
    hits, reference = hits.sharing(reference), reference.sharing(hits)
    if not hits.groups or not hits.objects:
        return None
    draws = _draws(hits, resamples, seed)
    low, high = interval_of(hits.drawn(*draws) - reference.drawn(*draws))
    return Estimate(float(np.mean(hits.values()) - np.mean(reference.values())), low, high)


def estimate_of(values: Sequence[float], *, overlap: float = 0.0) -> Estimate:
    """The mean of one number per seed, with Student's 95% interval; the bounds of a single seed are NaN.

    `overlap`, where the numbers are of splits of the same samples, is the ratio of test to train samples: the
    variance of the mean is (1/n + overlap) s² (Nadeau and Bengio, Machine Learning 2003, equation 9).
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, math.nan, math.nan)
    half = (_T[n - 2] if n - 2 < len(_T) else _NORMAL) * float(np.std(values, ddof=1))
    half *= math.sqrt(1 / n + overlap)
    return Estimate(mean, mean - half, mean + half)


def _draws(hits: Hits, resamples: int, seed: int) -> tuple[Ints, Ints]:
    rng = np.random.default_rng(seed)
    s, o = len(hits.hits_SOG), len(hits.objects)
    return rng.multinomial(s, np.full(s, 1 / s), resamples), rng.multinomial(o, np.full(o, 1 / o), resamples)
