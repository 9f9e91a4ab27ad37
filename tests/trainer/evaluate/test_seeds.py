"""Means, intervals and differences over seeds and objects, against slow ways of saying the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainer.evaluate.seeds import Hits, difference, estimate, estimate_of


def _answers(
    seed: int, *, share: float = 0.6, worst: bool = False, groups: int = 3, objects: int = 40
) -> Hits:
    rng = np.random.default_rng(seed)
    asked_OG = rng.integers(0, 3, (objects, groups)).astype(float)
    hits_SOG = rng.binomial(asked_OG.astype(int)[None].repeat(4, axis=0), share).astype(float)
    names = tuple(f"g{g}" for g in range(groups))
    return Hits(tuple(f"o{o:02d}" for o in range(objects)), names, hits_SOG, asked_OG, worst)


@pytest.mark.parametrize("worst", [False, True])
def test_resamples_are_those_of_a_loop(worst: bool) -> None:
    """Drawing seeds and objects one by one gives the same numbers as the products."""
    given = _answers(0, worst=worst)
    rng = np.random.default_rng(1)
    seeds_RS = rng.multinomial(4, np.full(4, 1 / 4), 5)
    objects_RO = rng.multinomial(40, np.full(40, 1 / 40), 5)
    for seeds_S, objects_O, value in zip(
        seeds_RS, objects_RO, given.drawn(seeds_RS, objects_RO), strict=True
    ):
        shares = []
        for g in range(3):
            hits = asked = 0.0
            for s in np.repeat(np.arange(4), seeds_S):
                for o in np.repeat(np.arange(40), objects_O):
                    hits += given.hits_SOG[s, o, g]
                    asked += given.asked_OG[o, g]
            shares.append(hits / asked)
        assert value == pytest.approx(min(shares) if worst else sum(shares) / 3, rel=1e-12)


def test_an_interval_covers_what_it_should() -> None:
    """Of many studies of a share of 0.6, about 95 in a hundred have it in their interval."""
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        asked = np.ones((60, 1))
        hits = rng.binomial(1, 0.6, (1, 60, 1)).repeat(3, axis=0).astype(float)  # the seeds do not matter
        found = estimate(Hits(tuple(map(str, range(60))), ("g",), hits, asked), resamples=500, seed=seed)
        covered.append(found.low <= 0.6 <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.98


def test_a_difference_is_paired() -> None:
    """One that is right wherever the reference is, and more, is surely better, though both alone overlap."""
    reference = _answers(2, objects=200, groups=1)
    better_SOG = reference.hits_SOG.copy()
    better_SOG[:, :12] = reference.asked_OG[:12]
    better = Hits(reference.objects, reference.groups, better_SOG, reference.asked_OG)
    apart = difference(better, reference, resamples=1000, seed=0)
    assert apart is not None and apart.excludes_zero and apart.low > 0
    alone = [estimate(a, resamples=1000, seed=0) for a in (reference, better)]
    assert alone[1].low < alone[0].high
    assert apart.value == pytest.approx(alone[1].value - alone[0].value, rel=1e-12)
    same = difference(reference, reference, resamples=100, seed=0)
    assert same is not None and (same.value, same.low, same.high) == (0, 0, 0) and not same.excludes_zero


def test_what_both_were_asked_is_compared() -> None:
    """Without a modality, or with fewer objects, a variant is compared on the others; with nothing, not."""
    whole = _answers(3)
    part = Hits(whole.objects, ("g1",), whole.hits_SOG[:, :, 1:2], whole.asked_OG[:, 1:2])
    apart = difference(part, whole, resamples=50, seed=0)
    assert apart is not None and apart.value == 0
    other = Hits(whole.objects, ("x",), part.hits_SOG, part.asked_OG)
    assert difference(other, whole, resamples=50, seed=0) is None
    fewer = Hits(whole.objects[1:], whole.groups, whole.hits_SOG[:, 1:], whole.asked_OG[1:])
    apart = difference(fewer, whole, resamples=50, seed=0)
    assert apart is not None and (apart.value, apart.low, apart.high) == (0, 0, 0)
    one_seed = Hits(whole.objects, whole.groups, whole.hits_SOG[:1], whole.asked_OG)
    with pytest.raises(ValueError, match=r"has [0-9]+ seeds and the reference"):
        difference(one_seed, whole, resamples=50, seed=0)


def test_one_number_per_seed_has_students_interval() -> None:
    """As scipy has it for 2 to 16 seeds; a single seed has no interval."""
    for n in (2, 5, 16):
        values = np.random.default_rng(n).normal(size=n)
        found = estimate_of(values.tolist())
        low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), rel=2e-3)
    assert math.isnan(estimate_of([1.0]).low)
