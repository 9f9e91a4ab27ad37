"""Heads in training: their kinds, their starts, and what is trained of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.errors import TrainingError
from trainer.align.maps import closed_form, make_map, unit_rows_
from trainer.settings import Train


def _world(n: int = 60, d: int = 8, t: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x, (x @ rng.normal(size=(d, t)) + 0.01 * rng.normal(size=(n, t))).astype(np.float32)


def _made(x: np.ndarray, t: np.ndarray, **options: Any) -> Any:
    settings = Train(**{"start": "random"} | options)
    start = None if settings.start == "random" else closed_form(x, t, settings.start)
    return make_map(x.shape[1], t.shape[1], start, settings, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"head": "linear"}, 8 * 8 + 8),
        ({"head": "residual"}, 8 * 8 + 8),
        ({"head": "low-rank", "rank": 3}, 3 * (8 + 8) + 8),
        ({"head": "mlp", "hidden": 5}, 5 * 8 + 5 + 8 * 5 + 8),
    ],
)
def test_every_kind_counts_and_maps_by_what_it_hands_out(options: dict[str, Any], trained: int) -> None:
    """The numbers for the disk give the rows that training sees, and each trained tensor a gradient."""
    x, t = _world()
    head = _made(x, t, **options)
    assert head.parameters == trained
    with torch.no_grad():
        for tensor in (*head.weights, *head.biases):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
    weight, bias, hidden = head.numbers()
    rows = x if hidden is None else np.maximum(x @ hidden[0].T + hidden[1], 0)
    np.testing.assert_allclose(head(torch.from_numpy(x)).detach().numpy(), rows @ weight.T + bias, atol=1e-4)
    head(torch.from_numpy(x)).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in (*head.weights, *head.biases))


@pytest.mark.parametrize("head", ["residual", "low-rank"])
def test_a_difference_starts_from_the_identity_or_the_closed_form(head: str) -> None:
    """Before the first step, features are passed on as they are, or mapped by the closed form."""
    x, t = _world()
    np.testing.assert_array_equal(_made(x, t, head=head)(torch.from_numpy(x)).detach().numpy(), x)
    started = _made(x, t, head=head, start="ridge")(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(started, x @ closed_form(x, t, "ridge").T, atol=1e-4)
    with pytest.raises(TrainingError, match=r'8 dimensions and the texts 4; set train\.start = "ridge"'):
        _made(x, t[:, :4], head=head)
    assert _made(x, t[:, :4], head=head, start="procrustes")(torch.from_numpy(x)).shape == (60, 4)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (6, 8)], ids=["tall", "wide"])
def test_ridge_is_the_minimum_of_its_formula(n: int, d: int) -> None:
    """No step in any direction makes the penalised squares smaller, whichever matrix is solved."""
    x, t = _world(n, d)
    w = closed_form(x, t, "ridge").astype(np.float64)
    penalty = np.trace(x.T.astype(np.float64) @ x) / min(n, d) / 3

    def cost(w: np.ndarray) -> float:
        return float(((x @ w.T - t) ** 2).sum() + penalty * (w**2).sum())

    rng = np.random.default_rng(3)
    assert all(cost(w + 1e-3 * rng.normal(size=w.shape)) > cost(w) for _ in range(50))
    slope = x.T.astype(np.float64) @ (x @ w.T - t) + penalty * w.T
    assert np.abs(slope).max() < 1e-4 * np.abs(x.T @ t).max()


@pytest.mark.parametrize(("d", "t"), [(8, 8), (8, 5), (5, 8)])
def test_procrustes_is_the_best_orthonormal_map(d: int, t: int) -> None:
    """Rows or columns are orthonormal, a rotation is found again, and no other such map fits better."""
    x, texts = _world(d=d, t=t)
    w = closed_form(x, texts, "procrustes").astype(np.float64)
    short = w @ w.T if t <= d else w.T @ w
    np.testing.assert_allclose(short, np.eye(min(d, t)), atol=1e-5)
    rng = np.random.default_rng(4)
    fit = float((texts * (x @ w.T)).sum())
    for _ in range(50):
        other, _ = np.linalg.qr(rng.normal(size=(max(d, t), min(d, t))))
        assert (texts * (x @ (other if t >= d else other.T).T)).sum() <= fit
    if d == t:
        rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
        np.testing.assert_allclose(closed_form(x, x @ rotation.T, "procrustes"), rotation, atol=1e-5)


def test_equal_features_do_not_break_a_closed_form() -> None:
    """One constant row, repeated, or zeros alone: finite maps."""
    for x in (np.ones((5, 4), np.float32), np.zeros((5, 4), np.float32)):
        for how in ("ridge", "procrustes"):
            assert np.isfinite(closed_form(x, np.ones((5, 3), np.float32), how)).all()


def test_unit_rows_and_their_gradient_are_those_of_torch() -> None:
    """Against finite differences in float64, and torch's own in float32; zero stays zero."""
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.normal(size=(7, 5)) * np.array([1e-3, 1, 1e3, 1, 1, 1, 1])[:, None])
    assert torch.autograd.gradcheck(lambda x: unit_rows_(x.clone()), x.requires_grad_())
    x, weight = x.detach().float().requires_grad_(), torch.from_numpy(rng.normal(size=(7, 5))).float()
    ours, theirs = unit_rows_(x.clone()), torch.nn.functional.normalize(x, dim=1)
    assert torch.equal(ours, theirs)
    (found,), (expected,) = (torch.autograd.grad((each * weight).sum(), x) for each in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert not unit_rows_(torch.zeros(2, 3)).any()
