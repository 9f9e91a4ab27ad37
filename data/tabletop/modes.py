"""Modal analysis: free vibrations of a solid of any shape, by the Rayleigh–Ritz "xyz" method.

W. M. Visscher, A. Migliori, T. M. Bell, R. A. Reinert, "On the normal modes of free vibration of
inhomogeneous and anisotropic elastic objects", J. Acoust. Soc. Am. 90 (1991) 2154–2162: displacements are
expanded in the monomials xˡ yᵐ zⁿ with l + m + n ≤ ORDER; then all that the method needs of a shape are its
moments ∫ xᵖ yᑫ zʳ dV, and the modes solve Γ a = ω² E a (their eqs. 8–11).

Legend: B basis functions, D = 3B degrees of freedom, K modes, N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from data.tabletop.objects import ObjectSpec, Shape

F64 = NDArray[np.float64]
Integers = NDArray[np.int64]
Parity = tuple[int, ...]
ORDER = 8
MOMENTS = 2 * ORDER + 1  # powers of a coordinate in an integral
RIGID = 6  # three translations and three rotations have no frequency


@dataclass(frozen=True, slots=True)
class Modes:
    """The K lowest free vibrations of a solid.

    `omega_K` is dimensionless: ω · radius / shear-wave speed. `shapes_KBD` holds the coefficients of the
    displacement (D = x, y, z) on the monomials of `exponents_B3`, in coordinates divided by the radius and
    with unit modal mass for unit density.
    """

    omega_K: F64
    shapes_KBD: F64
    exponents_B3: Integers

    def displacement(self, points_N3: F64) -> F64:
        """Displacement [K, N, 3] of every mode at points given in radii."""
        basis_BN = np.prod(points_N3[None] ** self.exponents_B3[:, None], axis=2)
        displaced: F64 = np.einsum("kbd,bn->knd", self.shapes_KBD, basis_BN)
        return displaced


@cache
def _exponents() -> Integers:
    triples = [t for t in product(range(ORDER + 1), repeat=3) if sum(t) <= ORDER]
    return np.array(sorted(triples, key=lambda t: (sum(t), t)))


def modes_of(spec: ObjectSpec, *, count: int) -> Modes:
    """The `count` lowest vibrations of an object, before scaling by its size and stiffness.

    They depend on shape, proportions and Poisson's ratio alone, so the balls of a material share theirs, and
    its cubes.
    """
    return _modes(spec.shape, spec.half_height / spec.radius, spec.stuff.poisson, count)


@lru_cache(maxsize=4)
def _modes(shape: Shape, height: float, poisson: float, count: int) -> Modes:
    """See `modes_of`; `height` is half the height in radii.

    Every shape here is its own mirror image in x and in y, so modes fall into four classes of parity that are
    solved one by one: a sixteenth of the work of the whole.
    """
    exponents_B3 = _exponents()
    moments = _moments(shape, height)
    lame = 2 * poisson / (1 - 2 * poisson)  # λ in units of G
    omegas, shapes = [], []
    for parity in product((0, 1), repeat=2):
        squared_K, vectors_DK = _solve(parity, moments, lame)
        shape_KBD = np.zeros((len(squared_K), len(exponents_B3), 3))
        start = 0
        for axis, rows in enumerate(_members(parity)):
            shape_KBD[:, rows, axis] = vectors_DK[start : start + len(rows)].T
            start += len(rows)
        omegas.append(np.sqrt(np.maximum(squared_K, 0)))
        shapes.append(shape_KBD)
    omega_K = np.concatenate(omegas)
    order = np.argsort(omega_K, kind="stable")[RIGID : RIGID + count]
    found = Modes(omega_K[order], np.concatenate(shapes)[order], exponents_B3)
    found.omega_K.flags.writeable = found.shapes_KBD.flags.writeable = False  # shared
    return found


@cache
def _members(parity: Parity) -> tuple[Integers, ...]:
    """For each direction of displacement, the basis functions of a class."""
    exponents_B3 = _exponents()
    return tuple(
        np.flatnonzero(
            ((exponents_B3[:, 0] + (axis == 0)) % 2 == parity[0])
            & ((exponents_B3[:, 1] + (axis == 1)) % 2 == parity[1])
        )
        for axis in range(3)
    )


def _solve(parity: Parity, moments: F64, lame: float) -> tuple[F64, F64]:
    """Solve Γ a = ω² E a within one class of parity; eigenvalues ω² ascending, eigenvectors in columns."""
    sizes = np.cumsum([0] + [len(rows) for rows in _members(parity)])
    stiff, mass = np.zeros((sizes[-1], sizes[-1])), np.zeros((sizes[-1], sizes[-1]))
    for i, j in product(range(3), repeat=2):
        block = np.s_[sizes[i] : sizes[i + 1], sizes[j] : sizes[j + 1]]

        def overlap(k: int | None, m: int | None, i: int = i, j: int = j) -> F64:
            factor, places = _terms(parity, i, j, k, m)
            integral: F64 = factor * moments.take(places)
            return integral

        # C_ikjl = λ δ_ik δ_jl + G (δ_ij δ_kl + δ_il δ_kj) for an isotropic solid
        stiff[block] = lame * overlap(i, j) + overlap(j, i)
        if i == j:
            stiff[block] += sum(overlap(k, k) for k in range(3))
            mass[block] = overlap(None, None)
    # Scaling each function to unit norm first keeps the Cholesky factor of this near-singular basis accurate.
    scale = 1 / np.sqrt(np.diag(mass))
    inverse = np.linalg.inv(np.linalg.cholesky(mass * np.outer(scale, scale)))
    stiff = inverse @ (stiff * np.outer(scale, scale)) @ inverse.T
    squared_K, vectors_DK = np.linalg.eigh((stiff + stiff.T) / 2)
    return squared_K, scale[:, None] * (inverse.T @ vectors_DK)


@cache
def _terms(parity: Parity, i: int, j: int, k: int | None, m: int | None) -> tuple[F64, Integers]:
    """∫ ∂ₖφ ∂ₘψ dV for all pairs of monomials φ of direction i, ψ of direction j, as (factor, place of the
    moment): the integral is their product. None means no derivative."""
    exponents_B3, members = _exponents(), _members(parity)
    left_B3, right_B3 = exponents_B3[members[i]], exponents_B3[members[j]]
    total = left_B3[:, None] + right_B3[None]
    factor = np.ones(total.shape[:2])
    for axis, exponents in ((k, left_B3[:, None]), (m, right_B3[None])):
        if axis is not None:
            factor = factor * exponents[..., axis]
            total = total - np.eye(3, dtype=np.int64)[axis]
    safe = np.maximum(total, 0)  # where an exponent fell below 0 the factor is 0
    return factor, np.ravel_multi_index(tuple(np.moveaxis(safe, 2, 0)), (MOMENTS,) * 3)


def _moments(shape: Shape, height: float) -> F64:
    """∫ xᵖ yᑫ zʳ dV over the object, in radii, for all p, q, r < MOMENTS."""
    powers = np.arange(MOMENTS)
    if shape == "cube":
        one = np.where(powers % 2 == 0, 2 / (powers + 1), 0.0)
        cube: F64 = one[:, None, None] * one[:, None] * one
        return cube
    # A solid of revolution is a stack of discs or rings: ∫ xᵖ yᑫ over a ring between radii a and b is
    # (bˢ - aˢ)/s · ∮ cosᵖ sinᑫ with s = p + q + 2.
    z_Z, weight_Z, inner_Z, outer_Z = _profile(shape, height)
    s = powers[:, None] + powers[None] + 2
    rings_PQZ = (
        (outer_Z ** s[..., None] - inner_Z ** s[..., None]) / s[..., None] * _angular(MOMENTS)[..., None]
    )
    revolved: F64 = np.einsum("pqz,z,rz->pqr", rings_PQZ, weight_Z, z_Z ** powers[:, None])
    return revolved


def _profile(shape: Shape, height: float) -> tuple[F64, F64, F64, F64]:
    """Heights, quadrature weights, inner and outer radii of a solid of revolution, in radii.

    Gauss–Legendre in the height for the cone; in the angle t with z = sin t for the round ones, whose square
    root at the poles would spoil it.
    """
    node, weight = np.polynomial.legendre.leggauss(48)
    if shape == "cone":
        return height * node, height * weight, np.zeros_like(node), (1 - node) / 2
    angle = np.pi / 2 * node
    z, jacobian, reach = (
        height * np.sin(angle),
        height * np.pi / 2 * weight * np.cos(angle),
        height * np.cos(angle),
    )
    if shape == "sphere":
        return z, jacobian, np.zeros_like(node), reach
    return z, jacobian, 1 - reach, 1 + reach


@cache
def _angular(count: int) -> F64:
    """∮ cosᵖt sinᑫt dt = 2 Γ((p+1)/2) Γ((q+1)/2) / Γ((p+q+2)/2) for even p and q, else 0."""
    table = np.zeros((count, count))
    for p, q in product(range(0, count, 2), repeat=2):
        table[p, q] = 2 * math.gamma((p + 1) / 2) * math.gamma((q + 1) / 2) / math.gamma((p + q + 2) / 2)
    return table
