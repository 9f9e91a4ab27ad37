"""The optimiser: AdamW as torch's class does it, to the bit, without importing torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor

from trainer.align.optimiser import Optimiser, learning_rate
from trainer.align.processes import ALONE
from trainer.settings import Train

SETTINGS = Train(epochs=6, learning_rate=0.1, weight_decay=0.3, clip_norm=0.5)


def _tensors() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=random).requires_grad_() for shape in ((5, 3), (5,)))
    return weight, bias, torch.zeros((), requires_grad=True)


def _loss(weight: Tensor, bias: Tensor, x_ND: Tensor) -> Tensor:
    return ((x_ND @ weight.T + bias).tanh() ** 2).sum()


def test_steps_are_those_of_torchs_class() -> None:
    """Weights decay, biases do not, and a tensor without a gradient stays; after six steps equal bits."""
    weight, bias, unused = _tensors()
    ours = Optimiser(
        [weight], [bias], [unused], settings=SETTINGS, steps=6, processes=ALONE, replayable=False
    )
    other, other_bias, other_unused = _tensors()
    adam = torch.optim.AdamW(
        [
            {"params": [other], "weight_decay": SETTINGS.weight_decay},
            {"params": [other_bias, other_unused], "weight_decay": 0.0},
        ],
        fused=True,
    )
    x_ND = torch.randn((7, 3), generator=torch.Generator().manual_seed(1))
    for step in range(1, 7):
        rate = ours.begin_step()
        ours.finish_step(_loss(weight, bias, x_ND))
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, 6, SETTINGS)
        assert rate == group["lr"]
        adam.zero_grad()
        _loss(other, other_bias, x_ND).backward()
        torch.nn.utils.clip_grad_norm_([other, other_bias], SETTINGS.clip_norm)
        adam.step()
    assert torch.equal(weight, other)
    assert torch.equal(bias, other_bias)
    assert unused.item() == 0
    assert not torch.equal(weight, _tensors()[0])


def test_a_step_does_not_import_the_compiler() -> None:
    """It takes longer than training a small head does."""
    code = (
        "import sys, torch; from trainer.align.optimiser import Optimiser;"
        "from trainer.align.processes import ALONE; from trainer.settings import Train;"
        "w = torch.ones(2, 2, requires_grad=True);"
        "o = Optimiser([w], [], [], settings=Train(), steps=2, processes=ALONE, replayable=False);"
        "o.begin_step(); o.finish_step(w.square().sum());"
        "print(w[0, 0].item() < 1, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["True", "False"]
