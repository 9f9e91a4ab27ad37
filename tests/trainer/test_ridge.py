"""The closed-form start, against scikit-learn and against refitting without each group."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge

from trainer import ridge as module
from trainer.ridge import ridge


def _data(n: int, dim: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x_ND = (rng.normal(size=(n, dim)) + 3).astype(np.float32)
    t_NT = (x_ND @ rng.normal(size=(dim, 4)) + noise * rng.normal(size=(n, 4))).astype(np.float32)
    return x_ND, t_NT, rng.integers(0, 6, size=n)


def test_agrees_with_scikit_learn() -> None:
    """Weights and biases are those of ridge regression with the chosen penalty, for few rows and for many."""
    for n, dim in ((12, 30), (200, 10)):
        x_ND, t_NT, groups_N = _data(n, dim)
        weight_TD, bias_T, penalty = ridge(x_ND, t_NT, groups_N)
        reference = Ridge(alpha=penalty, solver="svd").fit(x_ND.astype(np.float64), t_NT.astype(np.float64))
        np.testing.assert_allclose(weight_TD, reference.coef_, atol=1e-8)
        np.testing.assert_allclose(bias_T, reference.intercept_, atol=1e-8)


def test_the_penalty_is_the_best_for_left_out_groups() -> None:
    """The closed form chooses what refitting without each group, one penalty at a time, chooses."""
    x_ND, t_NT, groups_N = _data(60, 40, noise=8.0)
    x_ND, t_NT = x_ND.astype(np.float64), t_NT.astype(np.float64)
    x, t = x_ND - x_ND.mean(axis=0), t_NT - t_NT.mean(axis=0)
    largest = np.linalg.svd(x, compute_uv=False)[0] ** 2
    errors = []
    for share in module._PENALTIES:
        error = 0.0
        for group in np.unique(groups_N):
            out = groups_N == group
            fit = Ridge(alpha=share * largest, fit_intercept=False, solver="svd").fit(x[~out], t[~out])
            error += float(np.sum((t[out] - fit.predict(x[out])) ** 2))
        errors.append(error)
    _, _, penalty = ridge(x_ND, t_NT, groups_N)
    assert 0 < int(np.argmin(errors)) < len(errors) - 1  # the choice is a real one
    np.testing.assert_allclose(penalty, module._PENALTIES[int(np.argmin(errors))] * largest)


def test_equal_features_teach_the_mean() -> None:
    """Where features say nothing the head answers with the mean of the targets."""
    t_NT = np.array([[1, 0], [0, 1]], dtype=np.float32)
    weight_TD, bias_T, _ = ridge(np.ones((2, 3), dtype=np.float32), t_NT, np.array([0, 1]))
    assert not weight_TD.any()
    assert bias_T.tolist() == [0.5, 0.5]
