"""The contrastive losses that draw a sample's vector to its text and away from the others'.

Shapes: B pairs in a batch, M centers, D dimensions. All vectors are unit rows. τ is the temperature; it is
learned through its logarithm, which `bound_` keeps in bounds between steps.

Losses over a B × B matrix form it in blocks of rows, and their gradient with it, in the forward pass: no
matrix of logits outlives a block where B is large, and a small batch costs one product for the logits and one
for the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Bounds of the learned temperature (CLIP, too, clips at 0.01: Radford et al., ICML 2021, section 2.5).
MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 1.0

# A batch up to this many rows keeps its matrix of logits (64 MiB); a larger one makes it twice, in blocks.
_WHOLE = 4096
_BLOCK = 512


def symmetric_infonce(
    samples_BD: Tensor, texts_BD: Tensor, groups_B: Tensor, log_temperature: Tensor
) -> Tensor:
    """InfoNCE in both directions over one matrix of logits, with same-category masking: a scalar.

    With unit rows x_i and t_i, the pair (i, i) positive, and s_ij = x_i · t_j / τ,

        L = 1/2B Σ_i [ log Σ_{j ∈ N_i} exp s_ij - s_ii ]  +  1/2B Σ_i [ log Σ_{j ∈ N_i} exp s_ji - s_ii ]

        N_i = {i} ∪ {j : g_j ≠ g_i}

    van den Oord et al. 2018 (arXiv 1807.03748, eq. 4), in both directions as in CLIP (Radford et al., ICML
    2021, fig. 3); that others of the same group are neither positive nor negative is the usual removal of
    false negatives. `groups_B` holds category numbers; give samples without a category numbers of their own.
    A batch of one group has nothing to contrast: its loss is 0.
    """
    return _apply(_InfoNCE, samples_BD, texts_BD, groups_B, log_temperature, True)


def sigmoid_loss(
    samples_BD: Tensor, texts_BD: Tensor, groups_B: Tensor, log_temperature: Tensor, bias: Tensor
) -> Tensor:
    """The pairwise sigmoid loss, with same-category masking: a scalar.

        L = -1/B Σ_i [ log σ(s_ii + b) + Σ_{j : g_j ≠ g_i} log σ(-(s_ij + b)) ],  s_ij = x_i · t_j / τ

    SigLIP (Zhai et al., ICCV 2023, section 3.2), whose negatives here leave out those of the same group.
    `bias` is the learned scalar b.
    """
    return _apply(_Sigmoid, samples_BD, texts_BD, groups_B, log_temperature, bias)


def official_loss(samples_BD: Tensor, texts_BD: Tensor) -> Tensor:
    """The published recipe, exactly: one direction, cosine logits without a temperature: a scalar.

        L = -1/B Σ_i [ x_i · t_i - log Σ_j exp(x_i · t_j) ]

    UniBind's code: the mean diagonal of `log_softmax(v @ t.T)`. With unit rows it cannot fall far below
    log B.
    """
    return _apply(_InfoNCE, samples_BD, texts_BD, None, samples_BD.new_zeros(()), False)


def centers_loss(
    samples_BD: Tensor, centers_MD: Tensor, owners_M: Tensor, groups_B: Tensor, log_temperature: Tensor
) -> Tensor:
    """Pull a sample to every center of its category and push it from all others': a scalar.

        L = -1/B Σ_i 1/|P_i| Σ_{k ∈ P_i} [ s_ik - log Σ_{j=1..M} exp s_ij ],  P_i = {k : owner_k = g_i}

    Supervised contrastive learning with the sum outside the logarithm (Khosla et al., NeurIPS 2020, eq. 2),
    whose other side are frozen texts. Every sample's category must own a center. Centers get no gradient.
    """
    scaled_BD = samples_BD * (-log_temperature).exp()
    sums_CD = centers_MD.new_zeros(int(owners_M.max()) + 1, centers_MD.shape[1])
    sums_CD.index_add_(0, owners_M, centers_MD)
    counts_C = torch.bincount(owners_M, minlength=len(sums_CD))
    means_BD = (sums_CD / counts_C[:, None].clamp(min=1))[groups_B]
    # The mean over a category's centers of x · z is x · (their mean): one product for all negatives is left.
    return (torch.logsumexp(scaled_BD @ centers_MD.T, dim=1) - (scaled_BD * means_BD).sum(dim=1)).mean()


def bound_(log_temperature: Tensor) -> None:
    """Put log τ back into its bounds, in place, between steps (a clamp in the loss stops the gradient)."""
    with torch.no_grad():
        log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))


def _apply(function: Any, *given: object) -> Tensor:
    loss: Tensor = function.apply(*given)
    return loss


class _InfoNCE(torch.autograd.Function):
    """Loss and gradients in one go. `both`: the mean of both directions, else from samples to texts alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BD: Tensor,
        t_BD: Tensor,
        groups_B: Tensor | None,
        log_temperature: Tensor,
        both: bool,
    ) -> Tensor:
        n, scale = len(x_BD), float((-log_temperature).exp())
        row_B, positive_B, column_B = (x_BD.new_full((n,), -torch.inf) for _ in range(3))
        blocks = _blocks(n)
        logits = torch.empty(0)
        for rows in blocks:
            logits = _logits(x_BD, t_BD, groups_B, rows, scale)
            row_B[rows] = torch.logsumexp(logits, dim=1)
            positive_B[rows] = logits.diagonal(rows.start)
            if both:
                torch.logaddexp(column_B, torch.logsumexp(logits, dim=0), out=column_B)
        loss = (row_B - positive_B).mean()
        if both:
            loss = (loss + (column_B - positive_B).mean()) / 2
        if any(ctx.needs_input_grad):
            dx_BD, dt_BD = torch.empty_like(x_BD), _zeros_if(ctx.needs_input_grad[1], t_BD)
            for rows in blocks:
                if len(blocks) > 1:
                    logits = _logits(x_BD, t_BD, groups_B, rows, scale)
                # dL/ds_ij, the shares of both softmaxes less the positive's
                grad = torch.sub(logits, row_B[rows, None]).exp_()
                if both:
                    grad += logits.sub_(column_B).exp_()
                grad.diagonal(rows.start).sub_(2 if both else 1)
                factor = scale / (2 * n if both else n)
                torch.mul(grad @ t_BD, factor, out=dx_BD[rows])
                if ctx.needs_input_grad[1]:
                    dt_BD.addmm_(grad.T, x_BD[rows], alpha=factor)
            # s depends on log τ as -s: Σ_ij dL/ds_ij s_ij = Σ_i x_i · dL/dx_i
            ctx.save_for_backward(dx_BD, dt_BD, -(x_BD * dx_BD).sum())
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx_BD, dt_BD, d_log_temperature = ctx.saved_tensors
        return _scaled(grads[0], (dx_BD, dt_BD, None, d_log_temperature, None), ctx)


class _Sigmoid(torch.autograd.Function):
    """Loss and gradients in one go."""

    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, t_BD: Tensor, groups_B: Tensor, log_temperature: Tensor, bias: Tensor
    ) -> Tensor:
        n, scale = len(x_BD), float((-log_temperature).exp())
        loss, d_bias = x_BD.new_zeros(()), x_BD.new_zeros(())
        dx_BD, dt_BD = torch.empty_like(x_BD), _zeros_if(ctx.needs_input_grad[1], t_BD)
        for rows in _blocks(n):
            logits = _logits(x_BD, t_BD, groups_B, rows, scale) + bias
            # -log σ(-z) = softplus(z) for a negative, softplus(-z) = softplus(z) - z for the positive;
            # a masked logit is -∞ and gives 0 in both.
            loss += torch.nn.functional.softplus(logits).sum() - logits.diagonal(rows.start).sum()
            grad = logits.sigmoid_()
            grad.diagonal(rows.start).sub_(1)
            torch.mul(grad @ t_BD, scale / n, out=dx_BD[rows])
            if ctx.needs_input_grad[1]:
                dt_BD.addmm_(grad.T, x_BD[rows], alpha=scale / n)
            d_bias += grad.sum() / n
        ctx.save_for_backward(dx_BD, dt_BD, -(x_BD * dx_BD).sum(), d_bias)
        return loss / n

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dx_BD, dt_BD, d_log_temperature, d_bias = ctx.saved_tensors
        return _scaled(grads[0], (dx_BD, dt_BD, None, d_log_temperature, d_bias), ctx)


def _scaled(grad: Tensor, found: tuple[Tensor | None, ...], ctx: Any) -> tuple[Tensor | None, ...]:
    """The gradients that are asked for, times that of what the loss went into."""
    needed = zip(found, ctx.needs_input_grad, strict=True)
    return tuple(grad * each if each is not None and is_needed else None for each, is_needed in needed)


def _zeros_if(needed: bool, like_BD: Tensor) -> Tensor:
    return torch.zeros_like(like_BD) if needed else like_BD.new_zeros(())


def _blocks(n: int) -> list[slice]:
    if n <= _WHOLE:
        return [slice(0, n)]
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def _logits(x_BD: Tensor, t_BD: Tensor, groups_B: Tensor | None, rows: slice, scale: float) -> Tensor:
    """Some rows of the matrix of logits; -∞ where two of a group are no pair."""
    logits = x_BD[rows] @ t_BD.T
    logits *= scale
    if groups_B is not None:
        same = groups_B[rows, None] == groups_B
        same.diagonal(rows.start).fill_(False)
        logits.masked_fill_(same, -torch.inf)
    return logits
