"""The kinds of alignment heads in training: maps from a modality's features into the text space.

    linear    W x + b                      the paper's head
    residual  (W0 + W) x + b, W from 0     starts as W0 and learns the difference
    low-rank  (W0 + B A) x + b, B from 0   the same with a difference of rank r (LoRA, Hu et al., ICLR 2022)
    mlp       W2 max(W1 x + b1, 0) + b

W0 is the identity where features have the text space's dimension, else the closed-form start; it is not
trained. Linear heads, too, may start from a closed form. Shapes: B rows, N samples, D feature dimensions,
T text dimensions, H hidden units, R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.errors import TrainingError
from trainer.records import Floats
from trainer.settings import Train

_RIDGE = 1 / 3  # of the mean of the eigenvalues of the features' covariance that can differ from 0
_SHORTEST = 1e-12  # a shorter row is divided by this, so that zero stays zero


@dataclass(frozen=True)
class HeadMap:
    """One head in training: `base_TD` is frozen, `factors` are A [R, D] and B [T, R], `hidden` W1 and b1."""

    bias_T: Tensor
    weight_TD: Tensor | None = None
    base_TD: Tensor | None = None
    factors: tuple[Tensor, Tensor] | None = None
    hidden: tuple[Tensor, Tensor] | None = None

    def __call__(self, x_BD: Tensor) -> Tensor:
        """Map rows into the text space, [B, T]; not yet of unit length."""
        if self.hidden is not None:
            weight_HD, bias_H = self.hidden
            x_BD = torch.relu(torch.addmm(bias_H, x_BD, weight_HD.T))
        weight_TD = self._whole()
        return torch.addmm(self.bias_T, x_BD, weight_TD.T)

    def _whole(self) -> Tensor:
        parts = [part for part in (self.base_TD, self.weight_TD) if part is not None]
        if self.factors is not None:
            a_RD, b_TR = self.factors
            parts.append(b_TR @ a_RD)
        whole_TD = parts[0]
        for part in parts[1:]:
            whole_TD = whole_TD + part
        return whole_TD

    def to(self, device: torch.device) -> HeadMap:
        """The same map on a device, trained there."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or tensor.device == device:
                return tensor
            return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

        pairs = [
            None if pair is None else tuple(moved(t) for t in pair) for pair in (self.factors, self.hidden)
        ]
        return HeadMap(moved(self.bias_T), moved(self.weight_TD), moved(self.base_TD), *pairs)  # type: ignore[arg-type]

    @property
    def weights(self) -> list[Tensor]:
        """The trained matrices, which have weight decay."""
        found = [self.weight_TD, *(self.factors or ()), *(self.hidden or ())[:1]]
        return [tensor for tensor in found if tensor is not None]

    @property
    def biases(self) -> list[Tensor]:
        """The trained vectors, which have no weight decay."""
        return [self.bias_T, *(self.hidden or ())[1:]]

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(tensor.numel() for tensor in (*self.weights, *self.biases))

    def numbers(self) -> tuple[Floats, Floats, tuple[Floats, Floats] | None]:
        """The current map: weight [T, D or H], bias [T] and the hidden layer, if any."""
        with torch.no_grad():
            hidden = None if self.hidden is None else (_copied(self.hidden[0]), _copied(self.hidden[1]))
            return _copied(self._whole()), _copied(self.bias_T), hidden


def unit_rows_(x_BT: Tensor) -> Tensor:
    """Divide each row by its length, in place, as `torch.nn.functional.normalize` does; the same tensor."""
    function: Any = _UnitRows
    unit_BT: Tensor = function.apply(x_BT)
    return unit_BT


class _UnitRows(torch.autograd.Function):
    """With u = x / |x|: dL/dx = (dL/du - u (u · dL/du)) / |x|."""

    @staticmethod
    def forward(ctx: Any, x_BT: Tensor) -> Tensor:
        lengths_B1 = torch.linalg.vector_norm(x_BT, dim=1, keepdim=True).clamp_min_(_SHORTEST)
        x_BT /= lengths_B1
        ctx.mark_dirty(x_BT)
        ctx.save_for_backward(x_BT, lengths_B1)
        return x_BT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        unit_BT, lengths_B1 = ctx.saved_tensors
        along_B1 = torch.linalg.vecdot(unit_BT, grads[0])[:, None]
        grad_BT: Tensor = torch.addcmul(grads[0], unit_BT, along_B1, value=-1).div_(lengths_B1)
        return grad_BT


@dataclass(frozen=True)
class Scale:
    """The affine map that centres features and scales them to unit mean square length, for every encoder.

    Pooled network features are all positive and nearly parallel; a head would spend its steps on their mean.
    The map is folded into the trained head, so that the head on disk takes raw features.
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


def make_map(
    d: int,
    t: int,
    start_TD: Floats | None,
    settings: Train,
    rng: np.random.Generator,
    start_T: Floats | None = None,
) -> HeadMap:
    """A new head of the kind that `settings.head` names. `start_TD`, `start_T`: its closed-form start, or
    None.

    Raises TrainingError for a residual or low-rank head without a base to start from.
    """
    bias_T = torch.zeros(t) if start_T is None else torch.from_numpy(start_T.astype(np.float32))
    bias_T.requires_grad_()
    if settings.head == "mlp":
        hidden = settings.hidden
        return HeadMap(
            bias_T=bias_T,
            weight_TD=_uniform(rng, t, hidden),
            hidden=(_uniform(rng, hidden, d), torch.zeros(hidden, requires_grad=True)),
        )
    if settings.head == "linear":
        if start_TD is None:
            return HeadMap(bias_T=bias_T, weight_TD=_uniform(rng, t, d))
        return HeadMap(bias_T=bias_T, weight_TD=torch.from_numpy(start_TD).requires_grad_())
    if start_TD is None:
        if d != t:
            raise TrainingError(
                f'train.head = "{settings.head}" starts as the identity, but the features have {d} dimensions'
                f' and the texts {t}; set train.start = "ridge" or "procrustes"'
            )
        start_TD = np.eye(t, dtype=np.float32)
    base_TD = torch.from_numpy(start_TD)
    if settings.head == "residual":
        return HeadMap(bias_T=bias_T, base_TD=base_TD, weight_TD=torch.zeros(t, d, requires_grad=True))
    factors = _uniform(rng, settings.rank, d), torch.zeros(t, settings.rank, requires_grad=True)
    return HeadMap(bias_T=bias_T, base_TD=base_TD, factors=factors)


def closed_form(x_ND: Floats, targets_NT: Floats, how: str) -> Floats:
    """The linear map from features to their texts, in closed form: float32[T, D]. `how`: ridge or procrustes.

    ridge: argmin_W Σ |W x - t|² + λ |W|², λ a third of the mean eigenvalue of Xᵀ X, of those that can differ
    from 0 (as many as there are samples or dimensions, whichever are fewer). procrustes: the map with
    orthonormal rows or columns that maximises Σ t · W x, U Vᵀ of the singular value decomposition of Tᵀ X
    (Schönemann, Psychometrika 1966).
    """
    x_ND, t_NT = x_ND.astype(np.float64), targets_NT.astype(np.float64)
    if how == "procrustes":
        u, _, vh = np.linalg.svd(t_NT.T @ x_ND, full_matrices=False)
        return np.asarray(u @ vh, dtype=np.float32)
    is_wide = x_ND.shape[1] > len(x_ND)  # then the same map from the smaller matrix X Xᵀ
    gram = x_ND @ x_ND.T if is_wide else x_ND.T @ x_ND
    gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram) + 1e-12
    found_DT = x_ND.T @ np.linalg.solve(gram, t_NT) if is_wide else np.linalg.solve(gram, x_ND.T @ t_NT)
    return np.asarray(found_DT.T, dtype=np.float32)


def _uniform(rng: np.random.Generator, rows: int, columns: int) -> Tensor:
    """A weight uniform within ±1/√columns, as in torch.nn.Linear, but from our random generator."""
    bound = 1 / math.sqrt(columns)
    drawn = rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)
    return torch.from_numpy(drawn).requires_grad_()


def _copied(tensor: Tensor) -> Floats:
    copied: Floats = tensor.detach().cpu().numpy().copy()
    return copied
