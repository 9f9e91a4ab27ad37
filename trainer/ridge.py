"""A closed-form start for a head: ridge regression from features to text vectors.

Shapes: N samples, D feature dimensions, T text dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.records import Floats, Ints

Doubles = npt.NDArray[np.float64]

# Tried penalties, as shares of the largest squared singular value of the features.
_PENALTIES = 10.0 ** np.arange(-5.0, 1.5, 0.5)


def ridge(features_ND: Floats, targets_NT: Floats, groups_N: Ints) -> tuple[Doubles, Doubles, float]:
    """W [T, D] and b [T] that minimise Σ ‖W x_i + b - t_i‖² + λ ‖W‖², and the λ chosen.

    λ is the one under which *whole groups*, left out one at a time, are predicted best (smallest squared
    error): what is asked of a head is the naming of categories it has never seen. No refit is needed: for a
    linear smoother H the left-out residual of a group g is (I - H_gg)^-1 (t_g - (H t)_g) (Hastie, Tibshirani
    and Friedman, The Elements of Statistical Learning, 2nd ed., eq. 7.64, gives it for groups of one; the
    block form is the same algebra). The means of x and t, which make b, are taken over all rows.
    """
    x_mean_D = features_ND.mean(axis=0, dtype=np.float64)
    t_mean_T = targets_NT.mean(axis=0, dtype=np.float64)
    x_ND = features_ND.astype(np.float64) - x_mean_D
    t_NT = targets_NT.astype(np.float64) - t_mean_T
    u_NR, s_R, v_RD = np.linalg.svd(x_ND, full_matrices=False)
    if s_R[0] <= 0:  # every feature row is the same: only the mean can be learned
        return np.zeros((t_NT.shape[1], x_ND.shape[1])), t_mean_T, 0.0
    ut_RT = u_NR.T @ t_NT
    members = [np.flatnonzero(groups_N == group) for group in np.unique(groups_N)]
    errors = [
        sum(_left_out_error(u_NR[m], s_R**2 / (s_R**2 + penalty), ut_RT, t_NT[m]) for m in members)
        for penalty in _PENALTIES * s_R[0] ** 2
    ]
    penalty = float(_PENALTIES[int(np.argmin(errors))] * s_R[0] ** 2)
    weight_TD = ((s_R / (s_R**2 + penalty))[:, None] * ut_RT).T @ v_RD
    return weight_TD, t_mean_T - weight_TD @ x_mean_D, penalty


def _left_out_error(u_GR: Doubles, shrink_R: Doubles, ut_RT: Doubles, t_GT: Doubles) -> float:
    residual_GT = t_GT - (u_GR * shrink_R) @ ut_RT
    smoother_GG = (u_GR * shrink_R) @ u_GR.T
    left_out_GT = np.linalg.solve(np.eye(len(u_GR)) - smoother_GG, residual_GT)
    return float(np.sum(left_out_GT**2))
