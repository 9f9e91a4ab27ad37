"""Intervals, against resampling hit by hit."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluate.intervals import share_interval


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
