"""The shared space: means taken off, and the span of the trained categories' centers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trainer.align.shared import SharedSpace
from trainer.records import Centers
from trainer.settings import Train


def _centers(categories: int = 12, k: int = 3, dim: int = 30, rank: int = 30, seed: int = 0) -> Centers:
    """Noisy texts around one point of a few directions for each category, all in a narrow cone."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(categories, rank)) @ rng.normal(size=(rank, dim)) / rank**0.5
    common = 5 * rng.normal(size=dim)
    x = np.repeat(points, k, axis=0) + common + 0.05 * rng.normal(size=(categories * k, dim))
    return Centers(
        categories=tuple(f"c{i:02d}" for i in range(categories)),
        row_ids=tuple(map(str, range(categories * k))),
        category_N=np.repeat(np.arange(categories), k),
        vectors_ND=(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32),
    )


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def test_centers_lose_their_own_mean_and_what_no_sample_reaches() -> None:
    """Against float64 and scikit-learn: mean over categories, singular vectors of the trained ones' means."""
    from sklearn.decomposition import TruncatedSVD

    centers = _centers(rank=3)
    trained_C = np.arange(12) < 9
    space = SharedSpace.of(centers, trained_C, Train(subspace=1.0))
    x = centers.vectors_ND.astype(np.float64)
    mean_T = np.mean([x[centers.category_N == c].mean(axis=0) for c in range(12)], axis=0)
    off = _unit(x - mean_T)
    means = _unit(np.stack([off[centers.category_N == c].mean(axis=0) for c in range(9)]))
    assert space.mean_T is not None
    assert space.basis_RT is not None
    np.testing.assert_allclose(space.mean_T, mean_T, atol=1e-6)
    assert len(space.basis_RT) == 9
    np.testing.assert_allclose(space.basis_RT @ space.basis_RT.T, np.eye(9), atol=1e-5)
    theirs = TruncatedSVD(8, algorithm="arpack", random_state=0).fit(means).components_
    for row, other in zip(space.basis_RT[:4], theirs[:4], strict=True):
        assert abs(float(row @ other)) == pytest.approx(1, abs=1e-4)
    plane = space.basis_RT.T.astype(np.float64) @ space.basis_RT
    np.testing.assert_allclose(space.represent(centers).vectors_ND, _unit((x - mean_T) @ plane), atol=1e-5)
    # Trained categories' means lie in it.
    np.testing.assert_allclose(means @ plane, means, atol=1e-5)


def test_another_anchor_set_loses_a_mean_of_its_own() -> None:
    """A control that lies elsewhere as a whole is represented as if it did not."""
    centers = _centers()
    space = SharedSpace.of(centers, np.ones(12, bool), Train())
    control = _centers(seed=1)
    shifted = Centers(**{**vars(control), "vectors_ND": control.vectors_ND + np.float32(0.3)})
    np.testing.assert_allclose(
        space.represent(control).vectors_ND, space.represent(shifted).vectors_ND, atol=1e-4
    )
    assert not np.allclose(space.place(control.vectors_ND), space.represent(control).vectors_ND, atol=0.05)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"subspace": 0.0}, None), ({"subspace": 1.0}, 12), ({"subspace": 0.5}, 8), ({"centred": False}, 12)],
    ids=str,
)
def test_how_much_is_kept(options: dict[str, Any], kept: int | None) -> None:
    """All of the text space, the span, or its first components: at least eight."""
    space = SharedSpace.of(_centers(), np.ones(12, bool), Train(**options))
    assert (None if space.basis_RT is None else len(space.basis_RT)) == kept
    assert (space.mean_T is None) == ("centred" in options)


def test_components_are_dropped_by_their_variance() -> None:
    """As many singular values of the categories' means as make up the share asked for, and not one more."""
    centers = _centers(categories=40, rank=20)
    off = SharedSpace.of(centers, np.ones(40, bool), Train(subspace=0)).represent(centers).vectors_ND
    means = _unit(np.stack([off[centers.category_N == c].mean(axis=0) for c in range(40)]))
    variance = np.linalg.svd(means, compute_uv=False) ** 2
    for share in (0.8, 0.95):
        space = SharedSpace.of(centers, np.ones(40, bool), Train(subspace=share))
        assert space.basis_RT is not None
        kept = len(space.basis_RT)
        assert variance[:kept].sum() >= share * variance.sum() > variance[: kept - 1].sum()


def test_two_categories_are_compared_as_they_are() -> None:
    """Without their mean they would be a vector and its opposite, and every sample would be sure of one."""
    centers = _centers(categories=2)
    space = SharedSpace.of(centers, np.ones(2, bool), Train())
    assert space.mean_T is None
    assert space.basis_RT is not None
    assert len(space.basis_RT) == 2
    cosine = float(np.vdot(*space.represent(centers).vectors_ND[[0, 3]]))
    assert cosine == pytest.approx(float(np.vdot(*centers.vectors_ND[[0, 3]])), abs=0.02)


def test_without_a_trained_category_all_of_the_text_space_is_kept() -> None:
    """Descriptions alone say where samples go."""
    space = SharedSpace.of(_centers(), np.zeros(12, bool), Train())
    assert space.basis_RT is None
    assert space.mean_T is not None
    none = Centers((), (), np.zeros(0, np.int64), np.zeros((0, 5), np.float32))
    assert SharedSpace.of(none, np.zeros(0, bool), Train()) == SharedSpace()
    assert SharedSpace().represent(none).vectors_ND.shape == (0, 5)


def test_coordinates_give_the_rows_back() -> None:
    """Products of coordinates are those of the rows, and rows of the space survive both ways."""
    space = SharedSpace.of(_centers(), np.ones(12, bool), Train())
    rows = space.represent(_centers()).vectors_ND
    inside = space.coordinates(rows)
    np.testing.assert_allclose(space.from_coordinates(inside), rows, atol=1e-5)
    np.testing.assert_allclose(inside @ inside.T, rows @ rows.T, atol=1e-5)
    whole = SharedSpace()
    assert whole.coordinates(rows) is whole.from_coordinates(rows) is whole.project(rows) is rows
