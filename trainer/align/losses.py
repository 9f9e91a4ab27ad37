"""The losses: classification by mean centers, and contrasts of a sample's text with the others' texts.

Shapes: B pairs in a batch, b of them in this process (all, unless several processes share the batch), M
centers, D dimensions, C categories. Vectors are unit rows unless said. τ is the temperature; for contrasts it
is learned through its logarithm, which `clamp_temperature_` keeps in bounds between steps.

Losses over a B × B matrix form it, and their gradient, in blocks of rows: where B is large, no matrix of
logits outlives its block, and a small batch costs one product for the logits and one for the gradient. To add
a loss, write its function, enter it in `LOSSES` and name it in `trainer.settings.Loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.align.blocks import block_operations, mask_logits, row_blocks
from trainer.align.processes import ALONE, Processes
from trainer.settings import Loss

# Bounds of the learned temperature (CLIP, too, clips at 0.01: Radford et al., ICML 2021, section 2.5).
MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 1.0
_SHORTEST = 1e-6  # a shorter row is scaled as if it had this length


def symmetric_infonce(
    samples_bD: Tensor,
    texts_BD: Tensor,
    groups_B: Tensor,
    log_temperature: Tensor,
    rows: slice = slice(None),
    processes: Processes = ALONE,
) -> Tensor:
    """InfoNCE in both directions over one matrix of logits, with same-category masking: a scalar.

    With unit rows x_i and t_i, the pair (i, i) positive, and s_ij = x_i · t_j / τ,

        L = 1/2B Σ_i [ log Σ_{j ∈ N_i} exp s_ij - s_ii ]  +  1/2B Σ_i [ log Σ_{j ∈ N_i} exp s_ji - s_ii ]

        N_i = {i} ∪ {j : g_j ≠ g_i}

    van den Oord et al. 2018 (arXiv 1807.03748, eq. 4), in both directions as in CLIP (Radford et al., ICML
    2021, fig. 3); that others of the same group are neither positive nor negative is the usual removal of
    false negatives. `groups_B` holds category numbers; each sample without a category needs a unique number.
    A batch of one group has nothing to contrast: its loss is 0.

    With several `processes`, each passes the samples of its `rows` of the batch and gets its part of the
    loss. The negatives are still those of the whole batch: every process has all texts, and of the samples
    only the sums over columns are exchanged. Losses and gradients add up to those of a single process.
    """
    return _apply(_InfoNCE, samples_bD, texts_BD, groups_B, log_temperature, True, rows, processes)


def sigmoid_loss(
    samples_bD: Tensor,
    texts_BD: Tensor,
    groups_B: Tensor,
    log_temperature: Tensor,
    bias: Tensor,
    rows: slice = slice(None),
) -> Tensor:
    """The pairwise sigmoid loss, with same-category masking: a scalar.

        L = -1/B Σ_i [ log σ(s_ii + b) + Σ_{j : g_j ≠ g_i} log σ(-(s_ij + b)) ],  s_ij = x_i · t_j / τ

    SigLIP (Zhai et al., ICCV 2023, section 3.2), whose negatives here leave out those of the same group.
    `bias` is the learned scalar b. `rows`: as in `symmetric_infonce`.
    """
    return _apply(_Sigmoid, samples_bD, texts_BD, groups_B, log_temperature, bias, rows)


def official_loss(samples_bD: Tensor, texts_BD: Tensor, rows: slice = slice(None)) -> Tensor:
    """UniBind's published loss: one direction, cosine logits without a temperature: a scalar.

        L = -1/B Σ_i [ x_i · t_i - log Σ_j exp(x_i · t_j) ]

    UniBind's code: the mean diagonal of `log_softmax(v @ t.T)`. With unit rows it cannot fall far below
    log B. `rows`: as in `symmetric_infonce`.
    """
    return _apply(_InfoNCE, samples_bD, texts_BD, None, samples_bD.new_zeros(()), False, rows, ALONE)


def centers_loss(
    samples_bD: Tensor,
    centers_MD: Tensor,
    means_CD: Tensor,
    groups_b: Tensor,
    log_temperature: Tensor,
    n: int | None = None,
) -> Tensor:
    """Pull a sample to every center of its category and push it from all others': a scalar.

        L = -1/B Σ_i 1/|P_i| Σ_{k ∈ P_i} [ s_ik - log Σ_{j=1..M} exp s_ij ],  P_i = {k : owner_k = g_i}

    Supervised contrastive learning with the sum outside the logarithm (Khosla et al., NeurIPS 2020, eq. 2),
    against frozen texts. `means_CD` is the result of `center_means`. Every sample's category must have a
    center. Centers get no gradient. `n`: the rows B of the whole batch, where these are only some of them.
    """
    scaled_bD = samples_bD * (-log_temperature).exp()
    # The mean of x · z over a category's centers is x · (their mean), so that only one product remains.
    own_b = (scaled_bD * means_CD[groups_b]).sum(dim=1)
    return (torch.logsumexp(scaled_bD @ centers_MD.T, dim=1) - own_b).sum() / (n or len(own_b))


def means_loss(
    z_bD: Tensor, means_CD: Tensor, labels_b: Tensor, temperature: float, mixing: float, n: int | None = None
) -> Tensor:
    """The cross-entropy of categories' mean centers, for vectors of any length: a scalar.

        L = -1/B Σ_i [ s_iy - log Σ_c exp s_ic ],  s_ic = z_i · m_c / (τ |z_i|^p),  y the row's label

    With p = `mixing` = 0 this is multinomial logistic regression whose weights are the frozen unit vectors m:
    a row that is classified surely has nothing more to gain, and one that cannot be classified stays between
    the categories that it may belong to. With p = 1 the logits are cosines, which always gain by a step
    towards the mean center: rows crowd around it, whatever their modality, and with them those of categories
    that were not trained. `n`: the rows B of the whole batch, where these are only some of them.
    """
    return _apply(_Means, z_bD, means_CD, labels_b, temperature, mixing, n or len(z_bD))


def center_means(centers_MD: Tensor, owners_M: Tensor) -> Tensor:
    """The mean of each category's centers, not scaled to unit length; zeros where there are none: [C, D]."""
    sums_CD = centers_MD.new_zeros(int(owners_M.max()) + 1 if len(owners_M) else 0, centers_MD.shape[1])
    sums_CD.index_add_(0, owners_M, centers_MD)
    return sums_CD / torch.bincount(owners_M, minlength=len(sums_CD))[:, None].clamp(min=1)


def clamp_temperature_(log_temperature: Tensor) -> None:
    """Clamp log τ to its bounds, in place, between steps (within the loss it would stop the gradient)."""
    with torch.no_grad():
        log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))


@dataclass(frozen=True)
class PairBatch:
    """The arguments of a contrastive loss: b samples of a batch, and all its B texts."""

    samples_bD: Tensor
    texts_BD: Tensor
    groups_B: Tensor
    log_temperature: Tensor
    bias: Tensor  # learned, for the sigmoid loss
    rows: slice  # the batch's rows that these samples are
    processes: Processes


@dataclass(frozen=True)
class ContrastiveLoss:
    """A loss that `train.loss` can name."""

    contrast: Callable[[PairBatch], Tensor]
    uses_centers: bool = True  # samples are contrasted with their categories' centers as well


LOSSES: dict[Loss, ContrastiveLoss] = {
    "infonce": ContrastiveLoss(
        lambda b: symmetric_infonce(
            b.samples_bD, b.texts_BD, b.groups_B, b.log_temperature, b.rows, b.processes
        )
    ),
    "sigmoid": ContrastiveLoss(
        lambda b: sigmoid_loss(b.samples_bD, b.texts_BD, b.groups_B, b.log_temperature, b.bias, b.rows)
    ),
    "official": ContrastiveLoss(
        lambda b: official_loss(b.samples_bD, b.texts_BD, b.rows), uses_centers=False
    ),
}


def _apply(function: Any, *given: object) -> Tensor:
    loss: Tensor = function.apply(*given)
    return loss


class _InfoNCE(torch.autograd.Function):
    """`both`: the mean of both directions; otherwise samples to texts only.

    Only a batch that is a single block keeps its logits until the gradient is formed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_bD: Tensor,
        t_BD: Tensor,
        groups_B: Tensor | None,
        log_temperature: Tensor,
        both: bool,
        rows: slice,
        processes: Processes,
    ) -> Tensor:
        n, scale = len(t_BD), (-log_temperature).exp()
        first = rows.start or 0
        row_b, positive_b = (x_bD.new_empty(len(x_bD)) for _ in range(2))
        column_B = x_bD.new_full((n,), -torch.inf)
        blocks = row_blocks(len(x_bD), n, x_bD.device.type)
        operations = block_operations(x_bD.device.type, len(x_bD), n, scale, groups_B)
        where = scale, operations.groups_B, first
        logits, products = x_bD.new_empty(0), _room(blocks, t_BD)
        for block in blocks:
            logits = operations.prepare(_products(x_bD, t_BD, block, products), *where, block)
            row_b[block], below_B, positive_b[block] = operations.sums(logits, *where, block)
            column_B = below_B if len(blocks) == 1 else torch.logaddexp(column_B, below_B)
        loss = (row_b - positive_b).sum() / n
        if both:
            column_B = processes.logsumexp(column_B)
            mine_b = column_B[first : first + len(x_bD)]
            loss = (loss + (mine_b - positive_b).sum() / n) / 2
        kept = logits if len(blocks) == 1 else x_bD.new_empty(0)
        ctx.save_for_backward(x_bD, t_BD, scale, row_b, column_B, kept)
        ctx.both, ctx.first, ctx.blocks, ctx.operations = both, first, blocks, operations
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_bD, t_BD, scale, row_b, column_B, kept = ctx.saved_tensors
        first, blocks, operations = ctx.first, ctx.blocks, ctx.operations
        dx_bD, dt_BD = torch.empty_like(x_bD), _zeros_if(ctx.needs_input_grad[1], t_BD)
        d_log_temperature = x_bD.new_zeros(())
        factor = grads[0] * scale / (2 * len(t_BD) if ctx.both else len(t_BD))
        where = scale, operations.groups_B, first
        products, room = (_room(blocks, t_BD) for _ in range(2)) if len(blocks) > 1 else (kept, None)
        for block in blocks:
            logits = kept
            if len(blocks) > 1:
                logits = operations.prepare(_products(x_bD, t_BD, block, products), *where, block)
            given = (
                row_b[block],
                column_B if ctx.both else None,
                None if room is None else room[: len(logits)],
            )
            grad = operations.gradient(logits, *where, block, *given)
            grad.diagonal(first + block.start).sub_(2 if ctx.both else 1)
            d_log_temperature += _write_gradients(ctx, grad, x_bD, t_BD, block, factor, dx_bD, dt_BD)
        found = (dx_bD, dt_BD, None, d_log_temperature, None, None, None)
        return tuple(
            each if each is not None and is_needed else None
            for each, is_needed in zip(found, ctx.needs_input_grad, strict=True)
        )


class _Sigmoid(torch.autograd.Function):
    """Loss and gradients together."""

    @staticmethod
    def forward(
        ctx: Any,
        x_bD: Tensor,
        t_BD: Tensor,
        groups_B: Tensor,
        log_temperature: Tensor,
        bias: Tensor,
        rows: slice,
    ) -> Tensor:
        n, scale = len(t_BD), (-log_temperature).exp()
        first = rows.start or 0
        loss, d_bias, d_log_temperature = (x_bD.new_zeros(()) for _ in range(3))
        dx_bD, dt_BD = torch.empty_like(x_bD), _zeros_if(ctx.needs_input_grad[1], t_BD)
        for block in row_blocks(len(x_bD), n, x_bD.device.type):
            logits = mask_logits(x_bD[block] @ t_BD.T, scale, groups_B, first, block) + bias
            # -log σ(-z) = softplus(z) for a negative, softplus(-z) = softplus(z) - z for the positive;
            # a masked logit is -∞ and gives 0 in both.
            positive = logits.diagonal(first + block.start)
            loss += _sum(torch.nn.functional.softplus(logits)) - positive.sum()
            grad = logits.sigmoid_()
            grad.diagonal(first + block.start).sub_(1)
            d_log_temperature += _write_gradients(ctx, grad, x_bD, t_BD, block, scale / n, dx_bD, dt_BD)
            d_bias += _sum(grad) / n
        ctx.save_for_backward(dx_bD, dt_BD, d_log_temperature, d_bias)
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx_bD, dt_BD, d_log_temperature, d_bias = ctx.saved_tensors
        return _scaled(grads[0], (dx_bD, dt_BD, None, d_log_temperature, d_bias, None), ctx)


class _Means(torch.autograd.Function):
    """Loss and gradient together, by blocks of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        z_bD: Tensor,
        means_CD: Tensor,
        labels_b: Tensor,
        temperature: float,
        mixing: float,
        n: int,
    ) -> Tensor:
        loss, dz_bD = z_bD.new_zeros(()), torch.empty_like(z_bD)
        lengths_b1 = torch.linalg.vector_norm(z_bD, dim=1, keepdim=True).clamp_min_(_SHORTEST)
        factor_b1 = lengths_b1.pow(-mixing) / temperature
        for block in row_blocks(len(z_bD), len(means_CD), z_bD.device.type):
            own_b1 = labels_b[block, None]
            logits_bC = (z_bD[block] @ means_CD.T).mul_(factor_b1[block])
            sums_b1 = torch.logsumexp(logits_bC, dim=1, keepdim=True)
            loss += (sums_b1 - logits_bC.gather(1, own_b1)).sum()
            slopes_bC = logits_bC.sub_(sums_b1).exp_()
            slopes_bC.scatter_add_(1, own_b1, -torch.ones_like(sums_b1))
            torch.mm(slopes_bC, means_CD, out=dz_bD[block])
        dz_bD *= factor_b1 / n
        if mixing > 0:  # the part of the gradient that would only change the length counts less
            along_b1 = torch.linalg.vecdot(z_bD, dz_bD)[:, None] / lengths_b1.square()
            dz_bD -= z_bD * (mixing * along_b1)
        ctx.save_for_backward(dz_bD)
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dz_bD,) = ctx.saved_tensors
        return grads[0] * dz_bD, None, None, None, None, None


def _sum(x_bB: Tensor) -> Tensor:
    """The sum over rows, then over these: torch's sum of a whole matrix depends on the number of threads."""
    return x_bB.sum(dim=1).sum()


def _room(blocks: list[slice], t_BD: Tensor) -> Tensor:
    """Room for the matrices of one block after the other."""
    return t_BD.new_empty(max((each.stop - each.start for each in blocks), default=0), len(t_BD))


def _products(x_bD: Tensor, t_BD: Tensor, block: slice, buffer: Tensor) -> Tensor:
    return torch.mm(x_bD[block], t_BD.T, out=buffer[: block.stop - block.start])


def _write_gradients(
    ctx: Any,
    grad: Tensor,
    x_bD: Tensor,
    t_BD: Tensor,
    block: slice,
    factor: Tensor,
    dx_bD: Tensor,
    dt_BD: Tensor,
) -> Tensor:
    """Write a block's gradients, given `grad` = dL/ds without its factor; returns its part of dL/d log τ.

    s depends on log τ as -s: Σ_ij dL/ds_ij s_ij = Σ_i x_i · dL/dx_i.
    """
    torch.mm(grad, t_BD, out=dx_bD[block])
    dx_bD[block] *= factor
    if ctx.needs_input_grad[1]:
        dt_BD += (grad.T @ x_bD[block]) * factor
    share: Tensor = -torch.linalg.vecdot(x_bD[block], dx_bD[block]).sum()
    return share


def _scaled(grad: Tensor, found: tuple[Tensor | None, ...], ctx: Any) -> tuple[Tensor | None, ...]:
    """The gradients that autograd needs, times the gradient `grad` of the loss."""
    needed = zip(found, ctx.needs_input_grad, strict=True)
    return tuple(grad * each if each is not None and is_needed else None for each, is_needed in needed)


def _zeros_if(needed: bool, like_BD: Tensor) -> Tensor:
    return torch.zeros_like(like_BD) if needed else like_BD.new_zeros(())
