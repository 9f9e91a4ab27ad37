"""The contrastive loss that draws a sample's vector to its text and away from the others'.

Shapes: B pairs in a batch, D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Bounds of the learned temperature (CLIP, too, clips at 0.01: Radford et al., ICML 2021, section 2.5).
MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 1.0


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
    `log_temperature` is the scalar log τ; `bound_` keeps it in bounds between steps. A batch of one group has
    nothing to contrast: its loss is 0.
    """
    logits_BB = samples_BD @ texts_BD.T * (-log_temperature).exp()
    same_BB = groups_B[:, None] == groups_B[None, :]
    same_BB.fill_diagonal_(False)
    logits_BB = logits_BB.masked_fill(same_BB, -torch.inf)
    positive_B = logits_BB.diagonal()
    to_texts_B = torch.logsumexp(logits_BB, dim=1) - positive_B
    to_samples_B = torch.logsumexp(logits_BB, dim=0) - positive_B
    return (to_texts_B.mean() + to_samples_B.mean()) / 2


def bound_(log_temperature: Tensor) -> None:
    """Put log τ back into its bounds, in place, between steps (a clamp in the loss stops the gradient)."""
    with torch.no_grad():
        log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
