"""A map of many points keeps the neighbourhoods of its landmarks."""

from __future__ import annotations

import numpy as np

from trainer.evaluate.maps.landmarks import plane
from trainer.evaluate.maps.tsne import tsne
from trainer.score.geometry import unit_rows


def _clusters(rng: np.random.Generator, each: int) -> np.ndarray:
    middles = rng.normal(size=(4, 16))
    return np.concatenate([middle + 0.1 * rng.normal(size=(each, 16)) for middle in middles]).astype(
        np.float32
    )


def test_points_lie_among_their_own() -> None:
    """Of four clusters, every point lies nearest to the landmarks of its own one."""
    x_ND = _clusters(np.random.default_rng(3), 60)
    landmark_L = np.arange(0, 240, 6)
    xy_N2 = plane(x_ND, landmark_L)
    away = np.linalg.norm(xy_N2[:, None] - xy_N2[landmark_L][None], axis=2)
    away[landmark_L, np.arange(len(landmark_L))] = np.inf
    assert np.array_equal(landmark_L[away.argmin(axis=1)] // 60, np.arange(240) // 60)
    assert np.array_equal(xy_N2, plane(x_ND, landmark_L))


def test_with_all_points_as_landmarks_it_is_tsne() -> None:
    """In any order of the landmarks."""
    x_ND = _clusters(np.random.default_rng(0), 10)
    order = np.random.default_rng(1).permutation(40)
    assert np.array_equal(plane(x_ND, order)[order], tsne(unit_rows(x_ND)[order]))


def test_few_points() -> None:
    """One landmark places everything at one spot; nothing fails."""
    x_ND = _clusters(np.random.default_rng(0), 1)
    assert np.ptp(plane(x_ND, np.array([2])), axis=0).tolist() == [0.0, 0.0]
