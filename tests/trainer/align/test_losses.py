"""The loss and its gradient, against float64 references."""

from __future__ import annotations

import math
import weakref
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.align import blocks
from trainer.align.losses import (
    LOSSES,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    center_means,
    centers_loss,
    clamp_temperature_,
    means_loss,
    official_loss,
    sigmoid_loss,
    symmetric_infonce,
)
from trainer.settings import Loss


def _pairs(seed: int, b: int, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(2, b, dim))
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, t)]
    return torch.from_numpy(unit[0]), torch.from_numpy(unit[1])


def _reference(x: np.ndarray, t: np.ndarray, groups: list[int], temperature: float) -> float:
    """The formula of the docstring, one pair at a time."""
    total = 0.0
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j == i or groups[j] != groups[i]]
        s_ii = x[i] @ t[i] / temperature
        total += math.log(sum(math.exp(x[i] @ t[j] / temperature) for j in others)) - s_ii
        total += math.log(sum(math.exp(x[j] @ t[i] / temperature) for j in others)) - s_ii
    return total / (2 * len(x))


@pytest.mark.parametrize(
    "groups", [[0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 2, 2, 2], [5, 5, 5, 5, 5, 5, 9]], ids=str
)
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_agrees_with_the_formula(groups: list[int], temperature: float) -> None:
    """The loss is the docstring's formula, with and without groups, at both bounds of the temperature."""
    x, t = _pairs(0, 7)
    loss = symmetric_infonce(
        x, t, torch.tensor(groups), torch.tensor(math.log(temperature), dtype=torch.float64)
    )
    assert float(loss) == pytest.approx(_reference(x.numpy(), t.numpy(), groups, temperature), rel=1e-12)


def test_without_groups_it_is_the_cross_entropy_of_clip() -> None:
    """With every sample its own group, the loss is CLIP's mean of two cross entropies."""
    x, t = _pairs(1, 9)
    logits = x @ t.T / 0.07
    target = torch.arange(9)
    clip = (
        torch.nn.functional.cross_entropy(logits, target)
        + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    ours = symmetric_infonce(x, t, target, torch.tensor(math.log(0.07), dtype=torch.float64))
    assert float(ours) == pytest.approx(float(clip), rel=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Gradients for samples, texts and temperature, with masked pairs, in float64."""
    x, t = _pairs(2, 6)
    log_temperature = torch.tensor(math.log(0.2), dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([0, 0, 1, 2, 2, 3])
    assert torch.autograd.gradcheck(
        lambda a, b, s: symmetric_infonce(a, b, groups, s),
        (x.requires_grad_(), t.requires_grad_(), log_temperature),
    )


def test_a_batch_of_one_group_has_no_loss_and_no_gradient() -> None:
    """With nothing to contrast the loss is 0, not NaN."""
    x, t = _pairs(3, 4)
    x.requires_grad_()
    loss = symmetric_infonce(x, t, torch.zeros(4, dtype=torch.int64), torch.tensor(-2.0, dtype=torch.float64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not x.grad.any()


def test_others_of_the_category_are_no_negatives() -> None:
    """Moving another text of the same category changes nothing; moving one of another category does."""
    x, t = _pairs(4, 3)
    groups, cold = torch.tensor([0, 0, 1]), torch.tensor(-1.0, dtype=torch.float64)

    def first_row(texts: torch.Tensor) -> float:
        only = torch.tensor([1.0, 0, 0], dtype=torch.float64, requires_grad=True)
        loss = symmetric_infonce(x * only[:, None] + x * (1 - only[:, None]).detach(), texts, groups, cold)
        return float(torch.autograd.grad(loss, only)[0][0])

    moved_same, moved_other = t.clone(), t.clone()
    moved_same[1], moved_other[2] = -t[1], -t[2]
    assert first_row(moved_same) == pytest.approx(first_row(t), abs=1e-15)
    assert first_row(moved_other) != pytest.approx(first_row(t), abs=1e-3)


@pytest.mark.parametrize(("given", "bounded"), [(1e-6, MIN_TEMPERATURE), (0.3, 0.3), (50.0, MAX_TEMPERATURE)])
def test_the_temperature_is_put_back_into_its_bounds(given: float, bounded: float) -> None:
    """Out of bounds it is moved to the bound; within, it is left alone."""
    log_temperature = torch.tensor(math.log(given), requires_grad=True)
    clamp_temperature_(log_temperature)
    assert math.exp(float(log_temperature.detach())) == pytest.approx(bounded, rel=1e-6)


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


GROUPS = [0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 6]


@pytest.fixture(params=["whole", "blocks"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the whole matrix of logits, once row by row."""
    if request.param == "blocks":
        monkeypatch.setitem(blocks._WHOLE, "cpu", 64)  # an eighth is less than a row of eleven


@pytest.mark.usefixtures("both_ways")
def test_every_loss_over_pairs_is_its_formula() -> None:
    """InfoNCE, the sigmoid loss and the published one, one pair at a time in float64."""
    x, t = _pairs(5, len(GROUPS))
    x_, t_, n = x.numpy(), t.numpy(), len(GROUPS)
    cold, bias = torch.tensor(-1.5, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64)
    tau = math.exp(-1.5)
    assert float(symmetric_infonce(x, t, torch.tensor(GROUPS), cold)) == pytest.approx(
        _reference(x_, t_, GROUPS, tau), rel=1e-12
    )
    total = 0.0
    for i in range(n):
        total += _softplus(-(x_[i] @ t_[i] / tau - 0.7))
        for j in range(n):
            if GROUPS[j] != GROUPS[i]:
                total += _softplus(x_[i] @ t_[j] / tau - 0.7)
    assert float(sigmoid_loss(x, t, torch.tensor(GROUPS), cold, bias)) == pytest.approx(total / n, rel=1e-12)
    published = -torch.log_softmax(x @ t.T, dim=-1).diagonal().mean()
    assert float(official_loss(x, t)) == pytest.approx(float(published), rel=1e-12)


@pytest.mark.usefixtures("both_ways")
def test_every_gradient_is_that_of_finite_differences() -> None:
    """For samples, texts, temperature and bias, with masked pairs, whole and in blocks."""
    x, t = (each.requires_grad_() for each in _pairs(6, len(GROUPS)))
    groups = torch.tensor(GROUPS)
    cold = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    check = torch.autograd.gradcheck
    assert check(lambda a, b, s: symmetric_infonce(a, b, groups, s), (x, t, cold))
    assert check(lambda a, b, s, c: sigmoid_loss(a, b, groups, s, c), (x, t, cold, bias))
    assert check(official_loss, (x, t))
    texts = t.detach()
    assert check(lambda a, s: symmetric_infonce(a, texts, groups, s), (x, cold))
    assert check(lambda a, s: sigmoid_loss(a, texts, groups, s, bias.detach()), (x, cold))


class _Largest(TorchDispatchMode):
    """The bytes of the tensors that operations return, held as long as the tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(each, torch.Tensor) and not any(each is given for given in args):
                size = (
                    each.untyped_storage().nbytes() if each._base is None and not _is_view(each, args) else 0
                )
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(each, self._free, size)
        return found

    def _free(self, size: int) -> None:
        self.now -= size


def _is_view(each: torch.Tensor, args: Any) -> bool:
    given = [a for a in args if isinstance(a, torch.Tensor)]
    return any(each.untyped_storage().data_ptr() == a.untyped_storage().data_ptr() for a in given)


def test_blocks_hold_no_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient of 1,024 pairs in blocks of 32 rows take a fraction of their matrix of logits."""
    x, t = (each.float() for each in _pairs(12, 1024, dim=4))
    monkeypatch.setitem(blocks._WHOLE, "cpu", 8 * 32 * 1024)
    x.requires_grad_()
    with _Largest() as largest:
        symmetric_infonce(x, t, torch.arange(1024) // 2, torch.tensor(-2.0)).backward()
    block = 4 * 32 * 1024
    assert 2 * block < largest.most < 5 * block


def test_blocks_change_the_loss_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand float32 pairs give the same loss and gradient whole and in blocks of odd size."""
    x, t = (each.float().requires_grad_() for each in _pairs(7, 1000, dim=16))
    groups, cold = torch.arange(1000) // 3, torch.tensor(-2.5)
    found = []
    for whole in (1000**2, 8 * 97 * 1000):  # the second gives blocks of 97 rows
        monkeypatch.setitem(blocks._WHOLE, "cpu", whole)
        loss = symmetric_infonce(x, t, groups, cold)
        found.append((loss.detach(), *torch.autograd.grad(loss, (x, t))))
    for whole, in_blocks in zip(*found, strict=True):
        torch.testing.assert_close(whole, in_blocks, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "groups", [range(300), [i // 3 for i in range(300)], [0] * 299 + [1]], ids=["own", "threes", "two"]
)
@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_one_exponential_gives_what_differences_give(
    monkeypatch: pytest.MonkeyPatch, groups: list[int], temperature: float
) -> None:
    """float32 pairs, some of them equal and some opposite, against the same formula in float64."""
    x, t = _pairs(10, 300, dim=8)
    t[:100], t[100:150] = x[:100], -x[100:150]
    cold = torch.tensor(math.log(temperature), dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(blocks, "_LARGEST_SCALE", 0.0)
    expected = _loss_and_gradients(x, t, torch.tensor([*groups]), cold)
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(
        blocks, "_powers", lambda *given, form=blocks._powers: taken.append(1) or form(*given)
    )
    found = _loss_and_gradients(x.float(), t.float(), torch.tensor([*groups]), cold.detach().float())
    assert taken
    for exact, single in zip(expected, found, strict=True):
        atol = 2e-5 * float(exact.abs().max())
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=atol)


def _loss_and_gradients(
    x: torch.Tensor, t: torch.Tensor, groups: torch.Tensor, cold: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    given = tuple(each.detach().clone().requires_grad_() for each in (x, t, cold))
    loss = symmetric_infonce(given[0], given[1], groups, given[2])
    return loss.detach(), *torch.autograd.grad(loss, given)


def test_a_gradient_is_scaled_and_may_be_asked_for_twice() -> None:
    """Three times the loss has three times the gradient, and asking again gives the same bits."""
    x, t = _pairs(11, 12)
    x.requires_grad_()
    loss = symmetric_infonce(x, t, torch.arange(12) // 2, torch.tensor(-1.5, dtype=torch.float64))
    once, again, thrice = (torch.autograd.grad(k * loss, x, retain_graph=True)[0] for k in (1, 1, 3))
    assert torch.equal(once, again)
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-12, atol=0)


def test_logits_far_apart_neither_overflow_nor_vanish() -> None:
    """At the lowest temperature in float32, opposite vectors give a large finite loss and gradient."""
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = symmetric_infonce(x, -x.detach(), torch.arange(2), torch.tensor(math.log(MIN_TEMPERATURE)))
    assert float(loss.detach()) == pytest.approx(100, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 10


def test_meeting_all_centers_is_its_formula() -> None:
    """Every center of the category pulls alike and all others push; one without centers does neither."""
    x, _ = _pairs(8, 5)
    z, _ = _pairs(9, 7)
    owners, groups = [0, 0, 2, 2, 2, 3, 5], [0, 2, 3, 5, 0]
    total = 0.0
    for i, group in enumerate(groups):
        s = (z @ x[i] / 0.3).tolist()
        own = [s[k] for k, owner in enumerate(owners) if owner == group]
        total -= sum(own) / len(own) - math.log(sum(map(math.exp, s)))
    cold = torch.tensor(math.log(0.3), dtype=torch.float64, requires_grad=True)
    means = center_means(z, torch.tensor(owners))
    loss = centers_loss(x, z, means, torch.tensor(groups), cold)
    assert float(loss.detach()) == pytest.approx(total / 5, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda a, s: centers_loss(a, z, means, torch.tensor(groups), s),
        (x.requires_grad_(), cold),
    )


def test_every_loss_of_the_settings_has_a_function() -> None:
    """`train.loss` takes exactly the names in `LOSSES`."""
    assert set(LOSSES) == set(get_args(Loss))


def _means_reference(z: np.ndarray, m: np.ndarray, labels: list[int], tau: float, p: float) -> float:
    """The formula of the docstring, one row at a time."""
    total = 0.0
    for row, label in zip(z, labels, strict=True):
        scores = [float(row @ each) / (tau * float(row @ row) ** (p / 2)) for each in m]
        total += math.log(sum(math.exp(s - max(scores)) for s in scores)) + max(scores) - scores[label]
    return total / len(z)


@pytest.mark.parametrize("mixing", [0.0, 0.4, 1.0])
def test_mean_centers_agree_with_the_formula(mixing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient in float64, whole and by blocks of two rows; parts of a batch add up to it."""
    rng = np.random.default_rng(3)
    z = torch.from_numpy(rng.normal(size=(7, 5)) * rng.uniform(0.2, 4, size=(7, 1)))
    m = torch.from_numpy(rng.normal(size=(4, 5)))
    m = m / m.norm(dim=1, keepdim=True)
    labels = torch.tensor([0, 1, 2, 3, 3, 0, 1])
    expected = _means_reference(z.numpy(), m.numpy(), labels.tolist(), 0.3, mixing)
    assert float(means_loss(z, m, labels, 0.3, mixing)) == pytest.approx(expected, rel=1e-12)
    parts = [means_loss(z[i], m, labels[i], 0.3, mixing, 7) for i in (slice(0, 3), slice(3, 7))]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-12)
    for whole in (2**24, 64):
        monkeypatch.setitem(blocks._WHOLE, "cpu", whole)
        assert torch.autograd.gradcheck(
            lambda z: 3 * means_loss(z, m, labels, 0.3, mixing), z.clone().requires_grad_()
        )


def test_mean_centers_are_logistic_regression_where_lengths_count() -> None:
    """Without mixing, and with centers in all directions, the best linear map is scikit-learn's."""
    from scipy.optimize import minimize
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(4)
    label_N = np.repeat(np.arange(3), 20)
    x_ND = rng.normal(size=(60, 4)) + 1.5 * rng.normal(size=(3, 4))[label_N]
    # Three unit vectors at 120 degrees: a linear map onto them is any map whose outputs add up to zero.
    angle_C = 2 * np.pi * np.arange(3) / 3
    means = torch.from_numpy(np.stack([np.cos(angle_C), np.sin(angle_C)], axis=1))

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat.reshape(2, 4)).requires_grad_()
        loss = means_loss(torch.from_numpy(x_ND) @ w.T, means, torch.from_numpy(label_N), 1.0, 0.0)
        loss = loss + 0.5 * 0.1 * w.square().sum()
        loss.backward()
        assert w.grad is not None
        return float(loss.detach()), w.grad.numpy().ravel()

    found = minimize(cost, np.zeros(8), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15})
    # Its weights V = M W have the squared norm 3/2 |W|²: C is the reciprocal of the penalty on them times N.
    theirs = LogisticRegression(C=1 / (60 * 0.1 / 1.5), fit_intercept=False, tol=1e-9, max_iter=5000)
    theirs.fit(x_ND, label_N)
    np.testing.assert_allclose(means.numpy() @ found.x.reshape(2, 4), theirs.coef_, atol=1e-4)


def test_a_row_without_length_does_no_harm() -> None:
    """Zeros have a loss and a finite gradient at every strength of mixing."""
    for mixing in (0.0, 0.5, 1.0):
        z = torch.zeros(2, 3, requires_grad=True)
        loss = means_loss(z, torch.eye(3), torch.tensor([0, 1]), 0.07, mixing)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(math.log(3))
        assert z.grad is not None
        assert torch.isfinite(z.grad).all()
