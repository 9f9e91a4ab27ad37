"""The heads in training: one optimiser over one linear map per modality, on cached features.

Encoders are frozen, so features never change and are held as matrices: a step is a gather, one product per
modality and a few logits matrices. Shapes: B rows of a batch, N samples of a modality, M texts,
D feature dimensions, T text dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from trainer.heads import Heads
from trainer.losses import bound_, symmetric_infonce
from trainer.pairs import Pairs, batches
from trainer.records import Floats, Ints
from trainer.settings import Train

# Below this many multiplications in a step's forward product one thread is as fast as several, and on a busy
# machine ten times faster: a team of threads waits for its slowest at each of a step's many small operations.
_ONE_THREAD_PRODUCTS = 10**9


@contextmanager
def threads_for(products: int) -> Iterator[None]:
    """Let torch use one thread where a step has few products to share; as many as before otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < _ONE_THREAD_PRODUCTS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Aligner:
    """The heads in training, their optimiser and their random stream (the state that lives across epochs)."""

    def __init__(self, pairs: dict[str, Pairs], texts_MT: Floats, settings: Train) -> None:
        self._settings = settings
        self._pairs = pairs
        self._rng = np.random.default_rng(settings.seed)
        share = max(2, settings.batch_size // len(pairs))
        self._sizes = {m: min(share, len(p.samples)) for m, p in pairs.items()}
        self._steps_per_epoch = max(-(-len(p.samples) // self._sizes[m]) for m, p in pairs.items())
        self.steps = settings.epochs * self._steps_per_epoch
        features = sum(size * pairs[m].samples.vectors_ND.shape[1] for m, size in self._sizes.items())
        self.products_per_step = features * texts_MT.shape[1]
        self._step = 0

        self._texts_MT = torch.from_numpy(texts_MT)
        self._scales = {m: Scale.of(p.samples.vectors_ND) for m, p in pairs.items()}
        self._features = {
            m: torch.from_numpy(self._scales[m].apply(p.samples.vectors_ND)) for m, p in pairs.items()
        }
        self._weights = {m: self._uniform(texts_MT.shape[1], x.shape[1]) for m, x in self._features.items()}
        self._biases = {m: torch.zeros(texts_MT.shape[1], requires_grad=True) for m in pairs}
        self._log_temperature = torch.tensor(math.log(settings.temperature), requires_grad=True)
        self._optimiser = torch.optim.AdamW(
            [
                {"params": [*self._weights.values()], "weight_decay": settings.weight_decay},
                {"params": [*self._biases.values(), self._log_temperature], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )

    def _uniform(self, rows: int, columns: int) -> Tensor:
        """A weight as torch.nn.Linear starts it, within ±1/√columns, but from our own random stream."""
        bound = 1 / math.sqrt(columns)
        drawn = self._rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)
        return torch.from_numpy(drawn).requires_grad_()

    def epoch(self) -> list[dict[str, Any]]:
        """One pass over the largest modality; the others come round more than once. One log row per step."""
        orders = {
            m: batches(len(p.samples), self._sizes[m], self._steps_per_epoch, self._rng)
            for m, p in self._pairs.items()
        }
        return [
            self._take_step({m: order[s] for m, order in orders.items()})
            for s in range(self._steps_per_epoch)
        ]

    def _take_step(self, rows: dict[str, Ints]) -> dict[str, Any]:
        self._step += 1
        rate = learning_rate(self._step, self.steps, self._settings)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        loss, parts = self._loss(rows)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self._settings.clip_norm)
        self._optimiser.step()
        bound_(self._log_temperature)
        return {**self.log_row(), "learning_rate": rate, "loss": float(loss.detach()), **parts}

    def _loss(self, rows: dict[str, Ints]) -> tuple[Tensor, dict[str, float | None]]:
        """The weighted mean of two contrasts: with texts about the samples, and with centers.

        Texts about samples are contrasted within each modality: those about a sound and those about a picture
        are so easily told apart that heads would learn to say which modality it is, and the space would fall
        into one clump per modality. Centers speak of no modality and are contrasted across all of them.
        """
        mapped = {
            m: torch.nn.functional.normalize(
                self._features[m][torch.from_numpy(r)] @ self._weights[m].T + self._biases[m], dim=1
            )
            for m, r in rows.items()
        }
        own = [part for m in rows if (part := self._contrast("own", {m: rows[m]}, mapped)) is not None]
        weighted = [
            (1 - self._settings.center_weight, torch.stack(own).mean() if own else None),
            (self._settings.center_weight, self._contrast("centers", rows, mapped)),
        ]
        present = [(weight, part) for weight, part in weighted if part is not None and weight > 0]
        if not present:  # every sample of the batch has only texts of the kind that has no weight
            return 0 * self._log_temperature, {"loss_description": None, "loss_center": None}
        total = torch.stack([weight * part for weight, part in present]).sum()
        names = ("loss_description", "loss_center")
        parts = {
            name: None if part is None else float(part.detach())
            for name, (_, part) in zip(names, weighted, strict=True)
        }
        return total / sum(weight for weight, _ in present), parts

    def _contrast(
        self, kind: Literal["own", "centers"], rows: dict[str, Ints], mapped: dict[str, Tensor]
    ) -> Tensor | None:
        """The loss of some modalities' rows with one drawn text each; None where no row has such a text."""
        drawn = [getattr(self._pairs[m], kind).draw(r, self._rng) for m, r in rows.items()]
        has_B = torch.from_numpy(np.concatenate([has for _, has in drawn]))
        if not has_B.any():
            return None
        texts_B = torch.from_numpy(np.concatenate([text for text, _ in drawn]))
        groups_B = torch.from_numpy(np.concatenate([self._pairs[m].groups_N[r] for m, r in rows.items()]))
        samples_BT = torch.cat([mapped[m] for m in rows])
        return symmetric_infonce(
            samples_BT[has_B], self._texts_MT[texts_B[has_B]], groups_B[has_B], self._log_temperature
        )

    def log_row(self) -> dict[str, Any]:
        """The state now, without losses."""
        return {
            "step": self._step,
            "learning_rate": None,
            "loss": None,
            "loss_description": None,
            "loss_center": None,
            "temperature": float(self._log_temperature.detach().exp()),
        }

    def heads(self, metadata: dict[str, Any]) -> Heads:
        """The heads as they are now, for features as the encoder gives them."""
        folded = {
            m: self._scales[m].fold(self._weights[m].detach().numpy(), self._biases[m].detach().numpy())
            for m in self._pairs
        }
        return Heads(
            weights={m: weight for m, (weight, _) in folded.items()},
            biases={m: bias for m, (_, bias) in folded.items()},
            metadata=metadata,
        )


@dataclass(frozen=True)
class Scale:
    """Features are trained on centred and at unit mean square length, whatever the encoder's habits.

    Pooled network features are all positive and nearly parallel; a head would spend its steps on their mean.
    The map is affine, so it is folded into the head and the head on disk takes raw features.
    """

    mean_D: Floats
    factor: float

    @classmethod
    def of(cls, x_ND: Floats) -> Scale:
        mean_D = x_ND.mean(axis=0, dtype=np.float64)
        square = float(np.mean(np.sum((x_ND - mean_D) ** 2, axis=1)))
        return cls(mean_D.astype(np.float32), 1 / math.sqrt(square) if square > 0 else 1.0)

    def apply(self, x_ND: Floats) -> Floats:
        return np.asarray((x_ND - self.mean_D) * self.factor, dtype=np.float32)

    def fold(self, weight_TD: Floats, bias_T: Floats) -> tuple[Floats, Floats]:
        scaled_TD = np.asarray(weight_TD * self.factor, dtype=np.float32)
        return scaled_TD, np.asarray(bias_T - scaled_TD @ self.mean_D, dtype=np.float32)


def learning_rate(step: int, steps: int, settings: Train) -> float:
    """The rate of step 1 … `steps`: linear warm-up to the peak, then half a cosine down to zero."""
    warmup = max(1, round(settings.warmup * steps))
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
