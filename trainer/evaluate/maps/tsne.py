"""Exact, deterministic t-SNE in NumPy, for the thousand points that a picture can show.

Shapes: N points, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from data.threads import one_thread_each
from trainer.records import Doubles

_EXAGGERATION, _EXAGGERATED_SHARE = 12.0, 0.25
_TINY = 1e-12


def principal_axes(x_ND: npt.NDArray[np.floating], axes: int) -> Doubles:
    """Coordinates along the first principal axes: float64[N, axes], zero-padded where there are fewer.

    The sign of an axis is free; here its entry of largest size is positive, so that pictures do not flip.
    """
    centred_ND = x_ND.astype(np.float64) - x_ND.mean(axis=0, dtype=np.float64)
    u_NR, s_R, v_RD = np.linalg.svd(centred_ND, full_matrices=False)
    signs_R = np.sign(v_RD[np.arange(len(v_RD)), np.argmax(np.abs(v_RD), axis=1)])
    found_NA = (u_NR * s_R * signs_R)[:, :axes]
    return np.pad(found_NA, ((0, 0), (0, axes - found_NA.shape[1])))


@one_thread_each()
def tsne(x_ND: npt.NDArray[np.floating], *, perplexity: float = 30.0, steps: int = 400) -> Doubles:
    """Coordinates in the plane that keep neighbours close: float64[N, 2].

    van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008: gradient descent with momentum and
    gains on their eq. 5, over all pairs. It starts from the first two principal axes, scaled down to 1e-4
    (Kobak and Berens, Nature Communications 2019), with learning rate N / 12 (Belkina et al. 2019): no random
    number is drawn. Memory and time of a step grow with N². Perplexity is lowered to (N - 1) / 3 where N is
    small; fewer than four points are shown along their principal axes. One thread does it all: on a busy
    machine two would spend most of their time waiting for each other, in each step.
    """
    n = len(x_ND)
    y_N2 = principal_axes(x_ND, 2)
    if n < 4:
        return y_N2
    y_N2 *= 1e-4 / max(float(y_N2[:, 0].std()), _TINY)
    p_NN = joint_probabilities(x_ND, min(perplexity, (n - 1) / 3))
    speed_N2, gains_N2 = np.zeros_like(y_N2), np.ones_like(y_N2)
    rate = max(n / _EXAGGERATION, 50.0)
    for step in tqdm(range(steps), desc="t-SNE", unit="step", disable=None, leave=False):
        early = step < steps * _EXAGGERATED_SHARE
        gradient_N2 = _gradient(p_NN * _EXAGGERATION if early else p_NN, y_N2)
        agree_N2 = np.sign(gradient_N2) == np.sign(speed_N2)
        gains_N2 = np.maximum(np.where(agree_N2, gains_N2 * 0.8, gains_N2 + 0.2), 0.01)
        speed_N2 = (0.5 if early else 0.8) * speed_N2 - rate * gains_N2 * gradient_N2
        y_N2 = y_N2 + speed_N2
    centred_N2: Doubles = y_N2 - y_N2.mean(axis=0)
    return centred_N2


def joint_probabilities(x_ND: npt.NDArray[np.floating], perplexity: float) -> Doubles:
    """p_ij of t-SNE (eq. 1 and 2): float64[N, N], symmetric, zero diagonal, sum 1.

    Each row's bandwidth is found by bisection so that the row's entropy is log(perplexity).
    """
    distance_NN = _squared_distances(x_ND.astype(np.float64))
    np.fill_diagonal(distance_NN, np.inf)
    # Entropies do not change when a row is shifted: the nearest neighbour at 0 keeps exp away from underflow.
    distance_NN -= distance_NN.min(axis=1, keepdims=True)
    low_N1, high_N1 = np.zeros((len(x_ND), 1)), np.full((len(x_ND), 1), np.inf)
    beta_N1 = np.ones((len(x_ND), 1))
    finite_NN = np.where(np.isinf(distance_NN), 0.0, distance_NN)
    for _ in range(64):
        weight_NN = np.exp(-beta_N1 * distance_NN)
        total_N1 = weight_NN.sum(axis=1, keepdims=True)
        entropy_N1 = (
            np.log(total_N1) + beta_N1 * (finite_NN * weight_NN).sum(axis=1, keepdims=True) / total_N1
        )
        flat_N1 = entropy_N1 > np.log(perplexity)  # too wide: raise beta
        low_N1 = np.where(flat_N1, beta_N1, low_N1)
        high_N1 = np.where(flat_N1, high_N1, beta_N1)
        beta_N1 = np.where(np.isinf(high_N1), beta_N1 * 2, (low_N1 + high_N1) / 2)
        # Points that coincide with too many others cannot reach the perplexity.
        beta_N1 = np.minimum(beta_N1, 1e12)
    conditional_NN = weight_NN / total_N1
    joint_NN: Doubles = (conditional_NN + conditional_NN.T) / (2 * len(x_ND))
    return joint_NN


def _gradient(p_NN: Doubles, y_N2: Doubles) -> Doubles:
    """4 Σ_j (p_ij - q_ij)(y_i - y_j) / (1 + ‖y_i - y_j‖²), eq. 5, without an N × N × 2 array."""
    kernel_NN = 1 / (1 + _squared_distances(y_N2))
    np.fill_diagonal(kernel_NN, 0.0)
    force_NN = (p_NN - kernel_NN / max(float(kernel_NN.sum()), _TINY)) * kernel_NN
    gradient_N2: Doubles = 4 * (force_NN.sum(axis=1, keepdims=True) * y_N2 - force_NN @ y_N2)
    return gradient_N2


def _squared_distances(x_ND: Doubles) -> Doubles:
    squares_N = np.sum(x_ND**2, axis=1)
    distances: Doubles = np.maximum(squares_N[:, None] + squares_N[None, :] - 2 * (x_ND @ x_ND.T), 0.0)
    return distances
