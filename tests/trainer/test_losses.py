"""The loss and its gradient, against float64 references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.losses import MAX_TEMPERATURE, MIN_TEMPERATURE, bound_, symmetric_infonce


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
    bound_(log_temperature)
    assert math.exp(float(log_temperature.detach())) == pytest.approx(bounded, rel=1e-6)
