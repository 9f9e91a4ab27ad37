"""One optimiser over all heads: AdamW with warm-up, decay, clipping and moving averages, and its state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trainer.align.processes import Processes
from trainer.settings import Train

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class Optimiser:
    """AdamW over the trained tensors; its state, with theirs, is all that a later step depends on."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        scalars: Sequence[Tensor],
        *,
        settings: Train,
        steps: int,
        processes: Processes,
        replayable: bool,
        penalties: Sequence[float] = (),
    ) -> None:
        """Weights decay; biases and scalars do not. With `settings.ema`, weights and biases are averaged.

        `penalties`: λ of the penalty λ/2 |W|² on each of the weights, which every step's loss has besides.

        `replayable`: the rates of a step are in tensors, where a CUDA graph of `finish_step` reads them.
        """
        self.step = 0
        self.steps = steps
        self._settings = settings
        self._processes = processes
        self._averaged = [*weights, *biases]
        self._penalised = [(w, each) for w, each in zip(weights, penalties, strict=False) if each > 0]
        self._all = [*self._averaged, *scalars]
        self._averages = [tensor.detach().clone() for tensor in self._averaged] if settings.ema else []
        device = self._all[0].device
        # The learning rate, and how far a step moves the averages.
        self._rate: float | Tensor = torch.zeros((), device=device) if replayable else settings.learning_rate
        self._share: float | Tensor = torch.zeros((), device=device) if replayable else 0.0
        self._replayable = replayable
        self._groups = [
            ([*weights], settings.weight_decay),
            ([*biases, *scalars], 0.0),
        ]
        # From the start, so that every checkpoint has the same tensors.
        self._moments = {
            tensor: {
                "step": torch.zeros((), device=tensor.device),
                "exp_avg": torch.zeros_like(tensor),
                "exp_avg_sq": torch.zeros_like(tensor),
            }
            for tensor in self._all
        }

    def begin_step(self) -> float:
        """Count one more step and set its rates; returns the learning rate."""
        self.step += 1
        rate = learning_rate(self.step, self.steps, self._settings)
        # Bias-corrected, as Adam's moments: the decay grows to its value, so that the start weighs little.
        share = 1 - min(self._settings.ema, self.step / (self.step + 9))
        if isinstance(self._rate, Tensor) and isinstance(self._share, Tensor):
            self._rate.fill_(rate)
            self._share.fill_(share)
        else:
            self._rate, self._share = rate, share
        return rate

    def finish_step(self, loss: Tensor) -> None:
        """Step on the sum of all processes' losses: gradients, clipping, AdamW, moving averages."""
        for tensor in self._all:
            tensor.grad = None
        torch.autograd.backward(loss)
        self._processes.sum_in_place([grad for tensor in self._all if (grad := tensor.grad) is not None])
        with torch.no_grad():
            for weight, penalty in self._penalised:
                if weight.grad is not None:
                    weight.grad.add_(weight, alpha=penalty)
        torch.nn.utils.clip_grad_norm_(self._all, self._settings.clip_norm)
        with torch.no_grad():
            for tensors, decay in self._groups:
                self._move(tensors, decay)
        for average, tensor in zip(self._averages, self._averaged, strict=False):
            average.lerp_(tensor.detach(), self._share)

    def _move(self, tensors: Sequence[Tensor], decay: float) -> None:
        """One step of AdamW for the tensors that have a gradient.

        By torch's function: the class around it imports torch's compiler, which takes 1.5 s.
        """
        moved = [tensor for tensor in tensors if tensor.grad is not None]
        held = [self._moments[tensor] for tensor in moved]
        adamw(
            moved,
            [tensor.grad for tensor in moved if tensor.grad is not None],
            [each["exp_avg"] for each in held],
            [each["exp_avg_sq"] for each in held],
            [],
            [each["step"] for each in held],
            fused=True,
            capturable=self._replayable,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=self._rate,
            weight_decay=decay,
            eps=_EPSILON,
            maximize=False,
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the heads are their moving averages, where `settings.ema` keeps those."""
        with torch.no_grad():
            now = [tensor.clone() for tensor in self._averaged] if self._averages else []
            for tensor, average in zip(self._averaged, self._averages, strict=False):
                tensor.copy_(average)
            yield
            for tensor, before in zip(self._averaged, now, strict=False):
                tensor.copy_(before)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a later step depends on, by name."""
        found = {f"average.{i}": tensor for i, tensor in enumerate(self._averages)}
        for i, tensor in enumerate(self._all):
            found |= {f"trained.{i}": tensor.detach()}
            found |= {f"{name}.{i}": held for name, held in self._moments[tensor].items()}
        return found

    def restore(self, state: dict[str, Tensor], step: int) -> None:
        """Continue from `state`, which `state()` returned after `step` steps."""
        self.step = step
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])


def learning_rate(step: int, steps: int, settings: Train) -> float:
    """The rate of step 1 … `steps`: linear warm-up to the peak, then half a cosine or a line down to zero."""
    warmup = max(1, round(settings.warmup * steps))
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - progress)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
