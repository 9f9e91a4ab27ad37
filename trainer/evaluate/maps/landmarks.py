"""A map of any number of points: t-SNE of some landmarks, every other point placed among its nearest ones.

Shapes: N points, D dimensions, L landmarks.
"""

from __future__ import annotations

import numpy as np

from trainer.evaluate.maps.tsne import tsne
from trainer.records import Doubles, Floats, Ints
from trainer.score.geometry import unit_rows
from trainer.score.topk import nearest

NEIGHBOURS = 5
_WIDTH = 0.02  # of the weights, in cosine: the nearest landmarks decide


def plane(x_ND: Floats, landmark_L: Ints) -> Doubles:
    """Coordinates in the plane, float64[N, 2]: `tsne` for the landmarks (rows of `x_ND`).

    Every other point lies at the mean of its `NEIGHBOURS` nearest landmarks by cosine, weighted by
    exp(cosine / `_WIDTH`): distances between clusters mean as little as in t-SNE itself.
    """
    unit_ND = unit_rows(x_ND)
    landmark_LD = unit_ND[landmark_L]
    xy_L2 = tsne(landmark_LD)
    if len(landmark_L) == len(x_ND):
        xy_N2 = np.empty_like(xy_L2)
        xy_N2[landmark_L] = xy_L2
        return xy_N2
    index_NT, cosine_NT = nearest(unit_ND, landmark_LD, min(NEIGHBOURS, len(landmark_L)))
    weight_NT = np.exp((cosine_NT - cosine_NT[:, :1]) / _WIDTH)
    weight_NT /= weight_NT.sum(axis=1, keepdims=True)
    placed_N2: Doubles = np.einsum("nt,ntc->nc", weight_NT, xy_L2[index_NT])
    placed_N2[landmark_L] = xy_L2
    return placed_N2
