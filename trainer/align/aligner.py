"""Train the heads: one optimiser over one map per modality, on cached features.

Encoders are frozen, so features never change and are held as matrices: a step is a gather, one product per
modality and a few logits matrices. Shapes: B rows of a batch, b of them this process's, N samples of a
modality, M texts, D feature dimensions, R dimensions of the shared space, T text dimensions, C categories.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data.errors import TrainingError, first_line
from data.threads import one_thread_each
from trainer.align.draws import Contrast, Draws, Pull, StepLayout
from trainer.align.heads import Heads
from trainer.align.losses import (
    LOSSES,
    PairBatch,
    center_means,
    centers_loss,
    clamp_temperature_,
    means_loss,
)
from trainer.align.maps import HeadMap, Scale, closed_form, make_map, unit_rows_
from trainer.align.optimiser import Optimiser
from trainer.align.pairs import Pairs, batches
from trainer.align.processes import ALONE, Processes
from trainer.align.replay import Replay, can_replay
from trainer.align.shared import SharedSpace
from trainer.records import Floats, Ints, SampleSet, evenly_spaced
from trainer.score.geometry import unit_rows
from trainer.settings import Train

LOGGED = ("loss", "loss_description", "loss_center", "temperature")  # of every step; NaN: no such loss

# Below this many multiplications in one product one thread is as fast as several, and on a busy machine ten
# times faster: a team of threads waits, spinning, for its slowest at each of many small operations.
_ONE_THREAD_PRODUCTS = 10**9
MOST_ROWS = 20_000  # of a modality, for its start and its mean: of more samples, evenly spaced ones


def threads_for(products: int) -> AbstractContextManager[None]:
    """Within: NumPy and torch use one thread if there are few multiplications, else as many as before."""
    return one_thread_each() if products < _ONE_THREAD_PRODUCTS else nullcontext()


class Aligner:
    """The heads in training, their optimiser and their random generator: the state that epochs share."""

    def __init__(
        self,
        pairs: dict[str, Pairs],
        texts_MR: Floats,
        owners_M: Ints,
        settings: Train,
        processes: Processes = ALONE,
        space: SharedSpace | None = None,
    ) -> None:
        """The first rows of `texts_MR`, which are in `space`, are the centers; `owners_M` holds their
        categories.

        Raises TrainingError for heads that the dimensions do not allow and for an unavailable device.
        """
        self._settings = settings
        self._space = space or SharedSpace()
        self._processes = processes
        self._device = torch_device(settings.device)
        self._pairs = pairs
        self._rng = np.random.default_rng(settings.seed)
        share = max(2, settings.batch_size // len(pairs))
        self._sizes = {m: min(share, len(p.samples)) for m, p in pairs.items()}
        self._steps_per_epoch = max(-(-len(p.samples) // self._sizes[m]) for m, p in pairs.items())
        features = sum(size * pairs[m].samples.vectors_ND.shape[1] for m, size in self._sizes.items())
        self.products_per_step = features * texts_MR.shape[1]

        self._texts_MR = torch.from_numpy(texts_MR).to(self._device)
        self._centers_MR = self._texts_MR[: len(owners_M)]
        means_CR = center_means(torch.from_numpy(texts_MR[: len(owners_M)]), torch.from_numpy(owners_M))
        self._means_CR = means_CR.to(self._device)
        # The trained categories, as the classes of `means_loss`, and the place of each category among them.
        trained = np.unique(
            np.concatenate([p.samples.category_N[p.centers.counts_N > 0] for p in pairs.values()])
        )
        place_C = np.zeros(len(means_CR), dtype=np.int64)
        place_C[trained] = np.arange(len(trained))
        self._place_C = torch.from_numpy(place_C).to(self._device)
        targets_CR = unit_rows(means_CR.numpy())[trained]
        self._targets_CR = torch.from_numpy(targets_CR).to(self._device)
        self._center_weight, own = _weigh(pairs, settings)
        self._scales = {m: Scale.of(p.samples.vectors_ND) for m, p in pairs.items()}
        features_of = {m: self._scales[m].apply(p.samples.vectors_ND) for m, p in pairs.items()}
        self._maps = {
            m: self._make_map(x, pairs[m], texts_MR).to(self._device) for m, x in features_of.items()
        }
        self._features = {m: torch.from_numpy(x).to(self._device) for m, x in features_of.items()}
        # Gather buffers are allocated once: a new one for each step would come from the system each time.
        self._gathered = {
            m: torch.empty(self._sizes[m], x.shape[1], device=self._device) for m, x in self._features.items()
        }
        # Losses need their texts until their gradients are formed: one buffer for each loss of a step.
        drawn: dict[tuple[str, ...], int] = {}
        if own is not None:
            drawn = {("own", m): size for m, size in self._sizes.items()}
        if settings.centers == "one":
            drawn["centers", *self._sizes] = sum(self._sizes.values())
        self._drawn = {
            loss: torch.empty(size, texts_MR.shape[1], device=self._device) for loss, size in drawn.items()
        }
        self._log_temperature = _scalar(math.log(settings.temperature), self._device)
        # Most pairs are negatives, so the bias starts at their share (SigLIP, section 3.2).
        self._sigmoid_bias = _scalar(-math.log(max(2, share)), self._device)
        self._draws = Draws(
            pairs,
            self._rng,
            processes,
            settings.centers if self._center_weight > 0 else None,
            own=own,
        )
        replayed = can_replay(pairs, sum(self._sizes.values()), self._device, processes, own is not None)
        self._run = Replay(self._compute, self._device) if replayed else self._run_each
        self._optimiser = Optimiser(
            [weight for each in self._maps.values() for weight in each.weights],
            [bias for each in self._maps.values() for bias in each.biases],
            [self._log_temperature, self._sigmoid_bias],
            settings=settings,
            steps=settings.epochs * self._steps_per_epoch,
            processes=processes,
            replayable=replayed,
            penalties=[
                settings.penalty * self._sizes[m] / sum(self._sizes.values())
                for m, each in self._maps.items()
                for _ in each.weights
            ],
        )

    @property
    def steps(self) -> int:
        """The number of steps of all epochs."""
        return self._optimiser.steps

    def _make_map(self, x_ND: Floats, pairs: Pairs, texts_MR: Floats) -> HeadMap:
        """A map at its start: random, or the closed form from scaled features to their texts.

        There, the target of a sample is the mean of its category's centers, or of its own texts: of those
        that weigh more in the loss, where it has them.
        """
        settings, start_RD, start_R = self._settings, None, None
        if settings.start != "random" and settings.head != "mlp":
            by_center = self._center_weight >= 0.5
            first, second = (pairs.centers, pairs.own) if by_center else (pairs.own, pairs.centers)
            some = evenly_spaced(len(x_ND), MOST_ROWS)
            has_N = first.counts_N[some] > 0
            spans_N2 = np.stack(
                [
                    np.where(has_N, getattr(first, part)[some], getattr(second, part)[some])
                    for part in ("starts_N", "counts_N")
                ],
                axis=1,
            )
            distinct, place_N = np.unique(spans_N2, axis=0, return_inverse=True)
            means_UR = np.stack([texts_MR[start : start + n].mean(axis=0) for start, n in distinct.tolist()])
            targets_NR = means_UR[place_N.reshape(-1)]
            start_R = targets_NR.mean(axis=0)  # the features' mean is 0
            start_RD = closed_form(x_ND[some], targets_NR - start_R, settings.start)
        return make_map(x_ND.shape[1], texts_MR.shape[1], start_RD, settings, self._rng, start_R)

    def epoch(self) -> list[dict[str, Any]]:
        """Train for one pass over the largest modality, repeating smaller ones; one log row per step."""
        orders = {
            m: batches(len(p.samples), self._sizes[m], self._steps_per_epoch, self._rng)
            for m, p in self._pairs.items()
        }
        first = self._optimiser.step + 1
        taken = [
            self._take_step({m: order[s] for m, order in orders.items()})
            for s in range(self._steps_per_epoch)
        ]
        # Read once per epoch, because reading synchronises with the GPU.
        numbers = torch.stack([found for _, found in taken], dim=1)
        self._processes.sum_in_place(list(numbers[: LOGGED.index("temperature")]))
        columns = dict(zip(LOGGED, numbers.tolist(), strict=True))
        return [
            {
                "step": first + s,
                "learning_rate": rate,
                **{name: None if math.isnan(c[s]) else c[s] for name, c in columns.items()},
            }
            for s, (rate, _) in enumerate(taken)
        ]

    def _take_step(self, rows: dict[str, Ints]) -> tuple[float, Tensor]:
        """The learning rate of the step, and its numbers `LOGGED`."""
        layout, numbers = self._draws.step(rows)
        rate = self._optimiser.begin_step()
        return rate, self._run(layout, numbers)

    def _run_each(self, layout: StepLayout, numbers: Ints) -> Tensor:
        return self._compute(layout, torch.from_numpy(numbers).to(self._device))

    def _compute(self, layout: StepLayout, numbers: Tensor) -> Tensor:
        """All of a step that happens on the device: it reads and writes tensors of the same places only."""
        loss, parts = self._loss(layout, numbers)
        self._optimiser.finish_step(loss)
        clamp_temperature_(self._log_temperature)
        return torch.stack([loss.detach(), *(part.detach() for part in parts), self._temperature()])

    def _loss(self, layout: StepLayout, numbers: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The weighted mean of two losses: with texts about the samples, and with centers.

        Texts about samples are contrasted within each modality: texts about sounds differ so clearly from
        texts about pictures that heads would learn to encode the modality, and the space would split into one
        cluster per modality. Centers describe no modality; samples of all are compared with them. With
        several processes, each computes its part of every loss.
        """
        mapped = {m: self._map(m, numbers[place]) for m, place in layout.rows}
        if isinstance(layout.centers, Pull) and self._settings.centers == "mean":
            center_loss: Tensor | None = self._means_loss(layout.centers, numbers, mapped)
            unit = {m: unit_rows_(z_bR.clone()) for m, z_bR in mapped.items()} if layout.own else {}
        else:
            unit = {m: unit_rows_(z_bR) for m, z_bR in mapped.items()}
            center_loss = self._center_loss(layout.centers, numbers, unit)
        own = [self._contrast(each, numbers, unit) for each in layout.own]
        weighted = [
            (1 - self._center_weight, torch.stack(own).mean() if own else None),
            (self._center_weight, center_loss),
        ]
        present = [(weight, part) for weight, part in weighted if part is not None and weight > 0]
        total = 0 * self._log_temperature  # stays 0 where only texts of weight 0 are in the batch
        whole = sum(weight for weight, _ in present)
        for weight, part in present:
            total = total + weight / whole * part
        nothing = torch.full((), math.nan, device=self._device)
        of_texts, of_centers = (nothing if part is None else part for _, part in weighted)
        return total, (of_texts, of_centers)

    def _map(self, modality: str, rows_b: Tensor) -> Tensor:
        """Some rows of a modality, mapped into the shared space, of any length: [b, R]."""
        x_bD = self._gathered[modality][: len(rows_b)]
        torch.index_select(self._features[modality], 0, rows_b, out=x_bD)
        return self._maps[modality](x_bD)

    def _means_loss(self, loss: Pull, numbers: Tensor, mapped: dict[str, Tensor]) -> Tensor:
        """The loss of all rows with the mean centers of the trained categories."""
        return means_loss(
            torch.cat(list(mapped.values()))[numbers[loss.has_b]],
            self._targets_CR,
            self._place_C[numbers[loss.category_b]],
            self._settings.temperature,
            self._settings.mixing,
            loss.rows,
        )

    def _contrast(self, loss: Contrast, numbers: Tensor, mapped: dict[str, Tensor]) -> Tensor:
        each = [mapped[m] for m in loss.modalities]
        x_bR = each[0] if len(each) == 1 else torch.cat(each)
        x_bR = x_bR if loss.has_b is None else x_bR[numbers[loss.has_b]]
        own_B = numbers[loss.texts_B]
        buffer_BR = self._drawn[loss.kind, *loss.modalities]
        return LOSSES[self._settings.loss].contrast(
            PairBatch(
                samples_bD=x_bR,
                texts_BD=torch.index_select(self._texts_MR, 0, own_B, out=buffer_BR[: len(own_B)]),
                groups_B=numbers[loss.groups_B],
                log_temperature=self._log_temperature,
                bias=self._sigmoid_bias,
                rows=loss.mine,
                processes=self._processes,
            )
        )

    def _center_loss(
        self, loss: Contrast | Pull | None, numbers: Tensor, mapped: dict[str, Tensor]
    ) -> Tensor | None:
        """The loss of all rows with their categories' centers; None where no row's category has a center."""
        if not isinstance(loss, Pull):
            return None if loss is None else self._contrast(loss, numbers, mapped)
        return centers_loss(
            torch.cat(list(mapped.values()))[numbers[loss.has_b]],
            self._centers_MR,
            self._means_CR,
            numbers[loss.category_b],
            self._log_temperature,
            loss.rows,
        )

    def _temperature(self) -> Tensor:
        return self._log_temperature.detach().exp()

    def log_row(self) -> dict[str, Any]:
        """A log row of the current state, without losses."""
        return {
            "step": self._optimiser.step,
            "learning_rate": None,
            "loss": None,
            "loss_description": None,
            "loss_center": None,
            "temperature": float(self._temperature()),
        }

    def heads(self, metadata: dict[str, Any]) -> Heads:
        """The current heads into the text space, for features as the encoder gives them (not scaled)."""
        weights, biases, hidden = {}, {}, {}
        with self._optimiser.averaged():
            for m, each in self._maps.items():
                weight, bias, first = each.numbers()
                if first is None:
                    weight, bias = self._scales[m].fold(weight, bias)
                else:
                    hidden[m] = self._scales[m].fold(*first)
                weights[m] = np.ascontiguousarray(self._space.from_coordinates(weight.T).T)
                biases[m] = self._space.from_coordinates(bias)
        parameters = {m: each.parameters for m, each in self._maps.items()}
        metadata = {**metadata, "parameters": parameters}
        heads = Heads(weights, biases, metadata, hidden, space=self._space)
        if self._space.mean_T is None:
            return heads
        return replace(heads, means={m: modality_mean(heads, m, p.samples) for m, p in self._pairs.items()})

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that later epochs depend on: tensors, and values that JSON can hold."""
        return self._optimiser.state(), {"step": self._optimiser.step, "rng": self._rng.bit_generator.state}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Continue from what `state()` returned; the following epochs give the same bits."""
        self._optimiser.restore(tensors, facts["step"])
        self._rng.bit_generator.state = facts["rng"]


def _weigh(pairs: dict[str, Pairs], settings: Train) -> tuple[float, Literal["all", "unlabelled"] | None]:
    """The weight of the centers in the loss, and which samples are contrasted with texts about themselves.

    Where the settings leave centers all weight, samples without a label get that of their share, at most
    half.
    """
    if not LOSSES[settings.loss].uses_centers:
        return 0.0, "all"
    has_N = np.concatenate([p.centers.counts_N > 0 for p in pairs.values()])
    if not has_N.any() or settings.center_weight < 1:
        return (settings.center_weight if has_N.any() else 0.0), "all"
    share = float(np.mean(~has_N))
    return 1 - min(share, 0.5), "unlabelled" if share > 0 else None


def modality_mean(heads: Heads, modality: str, train: SampleSet) -> Floats:
    """The mean of a modality's train samples in the shared space: [T]."""
    mapped_NT = heads.map_with_mean(modality, train.vectors_ND[evenly_spaced(len(train), MOST_ROWS)])
    return np.asarray(mapped_NT.mean(axis=0, dtype=np.float64), dtype=np.float32)


def torch_device(name: str) -> torch.device:
    """The device to train on: `auto` is the first GPU (under torchrun, this process's), else the CPU.

    Raises TrainingError for a device that is not available.
    """
    if name == "auto":
        name = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise TrainingError(
            f'train.device = "{name}" is not available on this machine ({reason}); set "auto" or "cpu"'
        ) from error
    return device


def _scalar(value: float, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device=device, requires_grad=True)
