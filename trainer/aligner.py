"""The heads in training: one optimiser over one map per modality, on cached features.

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
from trainer.losses import bound_, centers_loss, official_loss, sigmoid_loss, symmetric_infonce
from trainer.maps import closed_form, make_map
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

    def __init__(self, pairs: dict[str, Pairs], texts_MT: Floats, owners_M: Ints, settings: Train) -> None:
        """`owners_M`: the categories of the centers, which are the first rows of `texts_MT`."""
        self._settings = settings
        self._owners_M = owners_M
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
        self._maps = {
            m: make_map(
                x.shape[1], texts_MT.shape[1], self._start(x.numpy(), pairs[m], texts_MT), settings, self._rng
            )
            for m, x in self._features.items()
        }
        self._log_temperature = torch.tensor(math.log(settings.temperature), requires_grad=True)
        # Where negatives are many, most pairs are none: the bias starts there (SigLIP, section 3.2).
        self._sigmoid_bias = torch.tensor(-math.log(max(2, share)), requires_grad=True)
        biases = [bias for each in self._maps.values() for bias in each.biases]
        self._optimiser = torch.optim.AdamW(
            [
                {
                    "params": [weight for each in self._maps.values() for weight in each.weights],
                    "weight_decay": settings.weight_decay,
                },
                {"params": [*biases, self._log_temperature, self._sigmoid_bias], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        # The averages of weights and biases, in their order.
        self._averages = [p.detach().clone() for p in self._trained()] if settings.ema else []

    def _trained(self) -> list[Tensor]:
        return [tensor for each in self._maps.values() for tensor in (*each.weights, *each.biases)]

    def _start(self, x_ND: Floats, pairs: Pairs, texts_MT: Floats) -> Floats | None:
        """A closed form, where one is wanted.

        Its targets are the mean of each sample's own texts, else of its category's centers.
        """
        if self._settings.start == "random":
            return None
        spans = zip(
            np.where(pairs.own.counts_N > 0, pairs.own.starts_N, pairs.centers.starts_N).tolist(),
            np.where(pairs.own.counts_N > 0, pairs.own.counts_N, pairs.centers.counts_N).tolist(),
            strict=True,
        )
        targets_NT = np.stack([texts_MT[start : start + count].mean(axis=0) for start, count in spans])
        return closed_form(x_ND, targets_NT, self._settings.start)

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
        for average, tensor in zip(self._averages, self._trained() if self._averages else (), strict=True):
            # As Adam's moments: corrected, so that the start does not weigh (the decay grows to its value).
            decay = min(self._settings.ema, self._step / (self._step + 9))
            average.lerp_(tensor.detach(), 1 - decay)
        return {**self.log_row(), "learning_rate": rate, "loss": float(loss.detach()), **parts}

    def _loss(self, rows: dict[str, Ints]) -> tuple[Tensor, dict[str, float | None]]:
        """The weighted mean of two contrasts: with texts about the samples, and with centers.

        Texts about samples are contrasted within each modality: those about a sound and those about a picture
        are so easily told apart that heads would learn to say which modality it is, and the space would fall
        into one clump per modality. Centers speak of no modality and are contrasted across all of them.
        """
        mapped = {
            m: torch.nn.functional.normalize(self._maps[m](self._features[m][torch.from_numpy(r)]), dim=1)
            for m, r in rows.items()
        }
        own = [part for m in rows if (part := self._contrast("own", {m: rows[m]}, mapped)) is not None]
        weighted = [
            (1 - self._settings.center_weight, torch.stack(own).mean() if own else None),
            (self._settings.center_weight, self._meet_centers(rows, mapped)),
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
        x_BT, t_BT = torch.cat([mapped[m] for m in rows])[has_B], self._texts_MT[texts_B[has_B]]
        if self._settings.loss == "official":
            return official_loss(x_BT, t_BT)
        if self._settings.loss == "sigmoid":
            return sigmoid_loss(x_BT, t_BT, groups_B[has_B], self._log_temperature, self._sigmoid_bias)
        return symmetric_infonce(x_BT, t_BT, groups_B[has_B], self._log_temperature)

    def _meet_centers(self, rows: dict[str, Ints], mapped: dict[str, Tensor]) -> Tensor | None:
        """The loss of all rows with their categories' centers; None where no row's category has one."""
        if self._settings.loss == "official":
            return None
        if self._settings.centers == "one":
            return self._contrast("centers", rows, mapped)
        has_B = np.concatenate([self._pairs[m].centers.counts_N[r] > 0 for m, r in rows.items()])
        if not has_B.any():
            return None
        category_B = np.concatenate([self._pairs[m].samples.category_N[r] for m, r in rows.items()])
        x_BT = torch.cat([mapped[m] for m in rows])[torch.from_numpy(has_B)]
        owners_M = torch.from_numpy(self._owners_M)
        return centers_loss(
            x_BT,
            self._texts_MT[: len(owners_M)],
            owners_M,
            torch.from_numpy(category_B[has_B]),
            self._log_temperature,
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
        weights, biases, hidden = {}, {}, {}
        with self._averaged():
            for m, each in self._maps.items():
                weights[m], biases[m], first = each.numbers()
                if first is None:
                    weights[m], biases[m] = self._scales[m].fold(weights[m], biases[m])
                else:
                    hidden[m] = self._scales[m].fold(*first)
        parameters = {m: each.parameters for m, each in self._maps.items()}
        return Heads(weights, biases, {**metadata, "parameters": parameters}, hidden)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within: the heads are their moving averages, where those are kept."""
        with torch.no_grad():
            now = [tensor.clone() for tensor in self._trained()] if self._averages else []
            for average, tensor in zip(self._averages, self._trained() if now else (), strict=True):
                tensor.copy_(average)
            yield
            for before, tensor in zip(now, self._trained() if now else (), strict=True):
                tensor.copy_(before)


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
    """The rate of step 1 … `steps`: linear warm-up to the peak, then half a cosine or a line down to zero."""
    warmup = max(1, round(settings.warmup * steps))
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - progress)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
