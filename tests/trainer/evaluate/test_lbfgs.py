"""Our L-BFGS, against torch's: the same steps, and the same bits where no product's kernel decides them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.evaluate.lbfgs import minimise
from trainer.evaluate.probe import STRENGTHS, logistic_regression


def _by_torch(
    x_ND: np.ndarray, label_N: np.ndarray, strength: float, start: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The probe's objective by torch.optim.LBFGS and autograd."""
    x, labels = torch.from_numpy(x_ND), torch.from_numpy(label_N)
    weight, bias = (torch.from_numpy(each.copy()).requires_grad_() for each in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=200,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    decay = 1 / (2 * strength * len(x_ND))

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(torch.addmm(bias, x, weight.T), labels) + decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach().numpy(), bias.detach().numpy()


@pytest.mark.parametrize(("n", "d", "k"), [(20, 3, 2), (60, 40, 5), (90, 90, 18), (40, 60, 7)])
def test_the_probe_ends_where_torch_does(n: int, d: int, k: int) -> None:
    """With weak and strong penalties, each started where the last one ended.

    Not to the bit: on some processors the last bits of a product depend on where its matrices lie in memory.
    """
    rng = np.random.default_rng(n)
    label_N = np.arange(n) % k
    x_ND = rng.normal(size=(n, d)) + rng.normal(size=(k, d))[label_N]
    start = np.zeros((k, d)), np.zeros(k)
    for strength in STRENGTHS[::2]:
        ours = logistic_regression(x_ND, label_N, strength, start)
        start = _by_torch(x_ND, label_N, strength, start)
        for found, expected in zip(ours, start, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def _rosenbrock(x: Tensor) -> tuple[float, Tensor]:
    a, b = float(x[0]), float(x[1])
    value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
    return value, torch.tensor([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)], dtype=torch.float64)


@pytest.mark.parametrize("start", [(-1.2, 1.0), (8.0, -30.0), (0.0, 0.0)])
def test_the_line_search_takes_the_steps_of_torch(start: tuple[float, float]) -> None:
    """In a bent valley, where steps are too long, too short, or end at a bound."""
    x = torch.tensor(start, dtype=torch.float64)
    theirs = x.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theirs],
        max_iter=200,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value, theirs.grad = _rosenbrock(theirs.detach())
        return torch.tensor(value, dtype=torch.float64)

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = minimise(_rosenbrock, x, iterations=200)
    assert found.tolist() == theirs.tolist()
    assert found.tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert x.tolist() == list(start)


def test_a_minimum_stays_where_it_is() -> None:
    """Nothing is evaluated beyond the start, and what is given is not changed."""
    asked = []

    def bowl(x: Tensor) -> tuple[float, Tensor]:
        asked.append(x.tolist())
        return float(x.dot(x)), 2 * x

    start = torch.zeros(3, dtype=torch.float64)
    assert minimise(bowl, start, iterations=5).tolist() == [0.0] * 3
    assert len(asked) == 1
