"""Training steps to measure: the trainer's, open_clip's form, and their products alone.

A step is: a gather of features, one head, the loss with frozen texts, the gradients, clipping, AdamW.
Shapes: B rows of a batch, N samples, D dimensions of features and texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contest import Contest
from bench.rows import at_least, at_most, row
from bench.vectors import unit
from trainer.align.aligner import Aligner
from trainer.align.losses import symmetric_infonce
from trainer.align.pairs import Pairs, Span
from trainer.records import SampleSet
from trainer.settings import Train

OURS, THEIRS, FLOOR = "ours", "open_clip's form", "four bare products"
# On a GPU also: the other form compiled by torch, with fused kernels between the products.
COMPILED = "open_clip's form, compiled"


def clip_loss(x_BD: Tensor, t_BD: Tensor, scale: Tensor) -> Tensor:
    """The form of `open_clip.loss.ClipLoss` on one device: two matrices of logits, two cross entropies."""
    labels_B = torch.arange(len(x_BD), device=x_BD.device)
    per_sample_BB = scale * x_BD @ t_BD.T
    per_text_BB = scale * t_BD @ x_BD.T
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(per_sample_BB, labels_B) + cross_entropy(per_text_BB, labels_B)) / 2


class Steps:
    """`steps` steps of every kind over the same cached features, on one device."""

    def __init__(self, *, n: int, dim: int, batch: int, device: str, compiled: bool = False) -> None:
        features_ND, texts_ND = unit(n, dim=dim), unit(n, dim=dim, seed=1)
        self.batch, self.device, self.steps = batch, device, n // batch
        self._features_ND, self._texts_ND = (torch.from_numpy(x).to(device) for x in (features_ND, texts_ND))
        none_N, all_N = np.zeros(n, np.int64), np.arange(n)
        samples = SampleSet(
            "image", tuple(map(str, all_N)), np.full(n, "train"), none_N - 1, all_N, features_ND
        )
        pairs = {"image": Pairs(samples, all_N, Span(all_N, none_N + 1), Span(none_N, none_N))}
        settings = Train(epochs=10**6, batch_size=batch, learning_rate=1e-4, start="random", device=device)
        self._aligner = Aligner(pairs, texts_ND, none_N[:0], settings)
        torch.manual_seed(0)
        self._weight_DD = (torch.randn(dim, dim, device=device) / math.sqrt(dim)).requires_grad_()
        self._log_temperature = torch.tensor(math.log(0.07), device=device, requires_grad=True)
        self._adam = torch.optim.AdamW([self._weight_DD, self._log_temperature], lr=1e-4)
        self._a_BD, self._w_DD = torch.randn(batch, dim, device=device), torch.randn(dim, dim, device=device)
        self._compiled = torch.compile(_clip_step) if compiled else None
        self._agree()

    def _agree(self) -> None:
        """Raise AssertionError where the two forms of the loss give other values or gradients."""
        x_BD, t_BD = self._features_ND[: self.batch].clone().requires_grad_(), self._texts_ND[: self.batch]
        cold, own_B = self._log_temperature.detach(), torch.arange(self.batch, device=self.device)
        losses = symmetric_infonce(x_BD, t_BD, own_B, cold), clip_loss(x_BD, t_BD, (-cold).exp())
        gradients = [torch.autograd.grad(loss, x_BD)[0] for loss in losses]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(*gradients, rtol=0.05, atol=0.02 * float(gradients[1].abs().max()))

    def ours(self) -> float:
        """The seconds of an epoch of the trainer."""
        return self._timed(self._aligner.epoch)

    def theirs(self, loss: Callable[..., Tensor] | None = None) -> float:
        """The seconds of as many steps of open_clip's form, over the same rows in another order."""

        def epoch() -> None:
            order = np.random.default_rng(0).permutation(len(self._features_ND))
            for start in range(0, self.steps * self.batch, self.batch):
                rows = torch.from_numpy(order[start : start + self.batch]).to(self.device)
                self._step(rows, loss or _clip_step)

        return self._timed(epoch)

    def compiled(self) -> float:
        """The same as `theirs`, compiled."""
        assert self._compiled is not None
        return self.theirs(self._compiled)

    def _step(self, rows: Tensor, loss: Callable[..., Tensor]) -> None:
        value = loss(self._features_ND[rows], self._weight_DD, self._texts_ND[rows], self._log_temperature)
        self._adam.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_([self._weight_DD, self._log_temperature], 1.0)
        self._adam.step()

    def floor(self) -> float:
        """Head, logits, and the gradients for the head's output and for its weight; nothing else."""

        def products() -> None:
            for _ in range(self.steps):
                self._a_BD @ self._w_DD.T
                logits_BB = self._a_BD @ self._a_BD.T
                logits_BB @ self._a_BD
                self._a_BD.T @ self._a_BD

        return self._timed(products)

    def _timed(self, work: Callable[[], Any]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def _clip_step(x_BD: Tensor, weight_DD: Tensor, t_BD: Tensor, log_temperature: Tensor) -> Tensor:
    mapped_BD = torch.nn.functional.normalize(x_BD @ weight_DD.T, dim=1)
    return clip_loss(mapped_BD, t_BD, (-log_temperature).exp())


def step_rows(
    steps: Steps, title: str, *, rounds: int, compiled: bool = False, goals: bool = True
) -> list[dict[str, Any]]:
    """One contest of steps as rows; the goals are those for a CPU."""
    contenders: dict[str, Callable[[], float]] = {OURS: steps.ours, THEIRS: steps.theirs, FLOOR: steps.floor}
    if compiled:
        contenders[COMPILED] = steps.compiled
    contest = Contest(contenders, rounds=rounds)
    slower, faster = 1 / contest.ratio(OURS, FLOOR), contest.ratio(OURS, THEIRS)
    rows = [
        row(f"{title}: {name}", 1e3 * contest.median(name) / steps.steps, "ms") for name in contest.seconds
    ]
    rows += [
        row(
            f"{title}: ours, of four bare products",
            slower,
            "times as long",
            against=FLOOR,
            ratio=slower,
            **(at_most(slower, 1.15, "times") if goals else {}),
        ),
        row(
            f"{title}: ours against open_clip's form",
            faster,
            "times as fast",
            against=THEIRS,
            ratio=faster,
            **(at_least(faster, 1.4) if goals else {}),
        ),
    ]
    return rows
