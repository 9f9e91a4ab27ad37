"""Facts of point clouds: proportions, roundness, corners, taper, openings.

Shape legend: N points; the last axis is x, y, z.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.readers.payload import Points
from kb_builder.facts.words import colour_phrase, grade, to_lab

_LEAST_FOR_OPENING = 200  # with fewer points an empty middle is chance

Doubles = npt.NDArray[np.float64]


def describe_points(points: Points) -> str:
    """Number of points, proportions, roundness, taper, and openings."""
    xyz_N3 = points.xyz_N3.astype(np.float64)
    colour = f", coloured {colour_phrase(to_lab(points.rgb_N3))}" if points.rgb_N3 is not None else ""
    head = f"A point cloud of {len(xyz_N3)} points{colour}"
    centred_N3 = xyz_N3 - xyz_N3.mean(axis=0)
    distance_N = np.linalg.norm(centred_N3, axis=1)
    if not distance_N.max() > 0:
        return f"{head}, all at one place."
    centred_N3, distance_N = centred_N3 / distance_N.max(), distance_N / distance_N.max()
    # Principal axes as rows, from the longest to the shortest spread.
    spread, axes = np.linalg.eigh(centred_N3.T @ centred_N3 / len(centred_N3))
    sigma, axes_33 = np.sqrt(np.maximum(spread[::-1], 0.0)), axes.T[::-1]
    extents = np.sort(np.ptp(centred_N3, axis=0))[::-1]
    sides = " to ".join(f"{extent:.1f}" for extent in extents / extents[0])
    facts = [_proportions(sigma), f"sides {sides}", _corners(distance_N)]
    in_axes_N3 = centred_N3 @ axes_33.T
    facts += ["tapering to one end"] * _tapers(in_axes_N3)
    facts += ["open along its middle axis like a ring or tube"] * _has_opening(in_axes_N3)
    return f"{head}: {'; '.join(facts)}."


def _proportions(sigma: Doubles) -> str:
    """Linear, planar or volumetric (Demantké et al., "Dimensionality based scale selection in 3D lidar point
    clouds", 2011): a1 = (σ1 − σ2) / σ1, a2 = (σ2 − σ3) / σ1, a3 = σ3 / σ1."""
    linear, planar, volume = (
        (sigma[0] - sigma[1]) / sigma[0],
        (sigma[1] - sigma[2]) / sigma[0],
        sigma[2] / sigma[0],
    )
    if volume > 0.85:
        return "about as wide as it is deep and tall"
    if linear >= planar:
        return grade(float(linear), [(0.25, "slightly long"), (0.6, "long")], "very long and thin")
    return grade(float(planar), [(0.25, "slightly flat"), (0.6, "flat")], "very flat, like a sheet")


def _corners(distance_N: Doubles) -> str:
    """How far the farthest points reach beyond the common distance from the middle: 1 on a ball."""
    if distance_N.std() < 0.06 * distance_N.mean():
        return "ball-like, every point equally far from the middle"
    reach = float(np.quantile(distance_N, 0.99) / np.median(distance_N))
    return grade(
        reach, [(1.25, "rounded without corners"), (1.6, "with blunt corners")], "with far-reaching parts"
    )


def _tapers(in_axes_N3: Doubles) -> bool:
    """Whether, along some principal axis, one end third is over 1.6 times as thick as the other."""
    for axis in range(3):
        along_N = in_axes_N3[:, axis]
        around_N = np.linalg.norm(np.delete(in_axes_N3, axis, axis=1), axis=1)
        low, high = along_N.min(), along_N.max()
        first = around_N[along_N <= low + (high - low) / 3]
        last = around_N[along_N >= high - (high - low) / 3]
        thin, thick = sorted((float(first.mean()), float(last.mean())))
        if thick > 1.6 * thin and thick > 0.05:
            return True
    return False


def _has_opening(in_axes_N3: Doubles) -> bool:
    """Whether, seen along some principal axis, nothing lies in the inner 15% of the cloud's radius.

    A closed surface fills its own middle in every view: a ball with its poles, a cylinder with its ends.
    """
    if len(in_axes_N3) < _LEAST_FOR_OPENING:
        return False
    for axis in range(3):
        around_N = np.linalg.norm(np.delete(in_axes_N3, axis, axis=1), axis=1)
        if around_N.min() > 0.15 * np.quantile(around_N, 0.99):
            return True
    return False
