"""t-SNE in NumPy, against scikit-learn's."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import squareform
from sklearn.decomposition import PCA
from sklearn.manifold import _t_sne, trustworthiness

from trainer.evaluate.maps.tsne import _gradient, joint_probabilities, principal_axes, tsne


def _clusters(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 20))[np.arange(n) % 6] + 0.3 * rng.normal(size=(n, 20))


def test_joint_probabilities_are_those_of_scikit_learn() -> None:
    """The same p_ij for the same perplexity."""
    x_ND = _clusters(60)
    squares = np.sum((x_ND[:, None] - x_ND[None]) ** 2, axis=2).astype(np.float32)
    expected = squareform(_t_sne._joint_probabilities(squares, 12.0, verbose=0))
    np.testing.assert_allclose(joint_probabilities(x_ND, 12.0), expected, atol=1e-7)


def test_the_gradient_is_that_of_the_divergence() -> None:
    """Finite differences of KL(P‖Q) agree with the closed form."""
    p_NN = joint_probabilities(_clusters(12), 3.0)
    y_N2 = np.random.default_rng(1).normal(size=(12, 2))

    def divergence(y: np.ndarray) -> float:
        kernel = 1 / (1 + np.sum((y[:, None] - y[None]) ** 2, axis=2))
        np.fill_diagonal(kernel, 0)
        q, off = kernel / kernel.sum(), ~np.eye(12, dtype=bool)
        return float(np.sum(p_NN[off] * np.log(p_NN[off] / q[off])))

    numeric = np.zeros_like(y_N2)
    for i in np.ndindex(y_N2.shape):
        step = np.zeros_like(y_N2)
        step[i] = 1e-6
        numeric[i] = (divergence(y_N2 + step) - divergence(y_N2 - step)) / 2e-6
    np.testing.assert_allclose(_gradient(p_NN, y_N2), numeric, atol=1e-7)


def test_neighbours_stay_neighbours() -> None:
    """The picture is as trustworthy as a good picture is, and two runs draw it alike."""
    x_ND = _clusters(120)
    y_N2 = tsne(x_ND)
    assert trustworthiness(x_ND, y_N2, n_neighbors=8) > 0.95
    assert np.array_equal(y_N2, tsne(x_ND))


def test_axes_are_those_of_scikit_learn_but_for_the_sign() -> None:
    """Principal coordinates, with a sign that does not depend on the SVD's mood."""
    x_ND = _clusters(40)
    np.testing.assert_allclose(np.abs(principal_axes(x_ND, 2)), np.abs(PCA(2).fit_transform(x_ND)), atol=1e-9)
    np.testing.assert_allclose(principal_axes(-x_ND, 2), -principal_axes(x_ND, 2), atol=1e-9)


def test_few_and_equal_points_are_drawn_without_nan() -> None:
    """One point, three points, and many points in one place have finite coordinates."""
    for x_ND in (np.ones((1, 5)), np.eye(3), np.ones((30, 5)), np.repeat(np.eye(3), 10, axis=0)):
        y_N2 = tsne(x_ND, steps=50)
        assert y_N2.shape == (len(x_ND), 2)
        assert np.isfinite(y_N2).all()
