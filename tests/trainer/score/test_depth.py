"""Ranks of the first relevant item, against sorting the whole gallery."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.records import Ints
from trainer.score.depth import first_ranks
from trainer.score.geometry import rounded, unit_rows
from trainer.score.topk import nearest

Level = tuple[Ints, Ints]


def _brute_force(x_ND: np.ndarray, y_MD: np.ndarray, level: Level) -> tuple[list[int], list[int]]:
    asked, ranks = [], []
    for query, (x_D, wanted) in enumerate(zip(x_ND, level[0], strict=True)):
        relevant_M = level[1] == wanted
        if wanted < 0 or not relevant_M.any():
            continue
        scores_M = rounded(y_MD.astype(np.float64) @ x_D.astype(np.float64))
        asked.append(query)
        ranks.append(int(np.flatnonzero(relevant_M[np.argsort(-scores_M, kind="stable")])[0]) + 1)
    return asked, ranks


@pytest.mark.parametrize(("n", "m", "labels"), [(30, 40, 5), (300, 1500, 400), (20, 3, 4)])
@pytest.mark.parametrize("coarse", [False, True])
def test_agrees_with_sorting_the_gallery(n: int, m: int, labels: int, coarse: bool) -> None:
    """At both levels, shallow and deep, also where most scores tie: a rank is that of a stable sort."""
    rng = np.random.default_rng(n + m)
    x_ND, y_MD = (rng.normal(size=(rows, 6)) for rows in (n, m))
    if coarse:  # a few distinct vectors only
        x_ND, y_MD = np.sign(x_ND[:, :3]), np.sign(y_MD[:, :3])
    x_ND, y_MD = unit_rows(x_ND.astype(np.float32)), unit_rows(y_MD.astype(np.float32))
    levels = [(rng.integers(-1, most, n), rng.integers(-1, most, m)) for most in (labels, 2 * labels)]
    places_NT, _ = nearest(x_ND, y_MD, 3)
    for level, (asked, ranks) in zip(levels, first_ranks(x_ND, y_MD, places_NT, levels), strict=True):
        assert (asked.tolist(), ranks.tolist()) == _brute_force(x_ND, y_MD, level)


def test_nothing_answerable_gives_nothing() -> None:
    """Without a relevant item no query has a rank."""
    x_ND = np.eye(3, dtype=np.float32)
    level = (np.array([0, -1, 1]), np.array([-1, 5, 6]))
    ((asked, ranks),) = first_ranks(x_ND, x_ND, nearest(x_ND, x_ND, 2)[0], [level])
    assert (len(asked), len(ranks)) == (0, 0)
