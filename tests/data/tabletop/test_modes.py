"""Free vibrations of solids, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import spherical_jn

from data.tabletop.modes import modes_of
from data.tabletop.objects import SHAPES, Shape, draw_object
from data.tabletop.shapes import mesh_of


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_a_sphere_has_the_torsional_modes_of_lamb(degree: int) -> None:
    """Torsional modes of a free sphere solve (n - 1) jₙ(x) = x jₙ₊₁(x), 2n + 1 times each (Lamb 1882)."""
    spec = draw_object("steel", "sphere", index=0, seed=0)

    def torsion(x: float) -> float:
        return float((degree - 1) * spherical_jn(degree, x) - x * spherical_jn(degree + 1, x))

    root = brentq(torsion, degree, degree + 2)
    near = np.abs(modes_of(spec, count=60).omega_K / root - 1) < 2e-4
    assert near.sum() == 2 * degree + 1


def test_the_gravest_spheroidal_mode_of_a_sphere_is_that_of_the_literature() -> None:
    """For ν = 0.29 the fivefold mode ₀S₂ lies at 2.645, between 2.64 at ν = 1/4 and 2.65 at ν = 1/3."""
    omega = modes_of(draw_object("steel", "sphere", index=0, seed=0), count=12).omega_K
    np.testing.assert_allclose(omega[5:10], 2.645, atol=3e-3)


@pytest.mark.parametrize("material", ["rubber", "glass", "cork"])
def test_a_cube_has_the_lame_modes(material: str) -> None:
    """Whatever Poisson's ratio, three modes of a cube have ω · edge / c = √2 π exactly (Lamé 1852)."""
    omega = modes_of(draw_object(material, "cube", index=0, seed=0), count=60).omega_K
    assert (np.abs(omega / (np.pi / np.sqrt(2)) - 1) < 2e-4).sum() == 3


def test_a_thin_ring_bends_as_a_bar_does() -> None:
    """In-plane bending of a thin ring: ω² = E I n² (n² - 1)² / (ρ A R⁴ (n² + 1)), n = 2 (Hoppe 1871)."""
    spec = replace(draw_object("steel", "torus", index=0, seed=0), aspect=0.2)
    nu, thin = spec.stuff.poisson, spec.aspect
    bar = np.sqrt(2 * (1 + nu) * thin**2 / 4 * 36 / 5)  # in units of shear speed over ring radius
    omega = modes_of(spec, count=4).omega_K
    # A tube this thick is a little softer than a thin bar, a Ritz solution a little stiffer than the truth.
    assert np.min(np.abs(omega / bar - 1)) < 0.06


@pytest.mark.parametrize("shape", SHAPES)
def test_there_are_six_rigid_motions_and_no_more(shape: Shape) -> None:
    """The first frequency that is kept is well above nought, and modes have unit mass."""
    spec = draw_object("wooden", shape, index=1, seed=0)
    modes = modes_of(spec, count=30)
    assert modes.omega_K[0] > 0.2
    assert np.all(np.diff(modes.omega_K) >= 0)
    # ∫ |u|² dV over random points within the object, as a Monte Carlo estimate of the modal mass
    rng = np.random.default_rng(0)
    inside = rng.uniform(-1, 1, (12_000, 3)) * mesh_of(spec).extents / 2
    inside = inside[_is_inside(spec, inside)] / spec.radius
    moved = modes.displacement(inside)
    masses = (moved**2).sum(axis=2).mean(axis=1) * spec.volume / spec.radius**3
    np.testing.assert_allclose(masses, 1, rtol=0.12)


def test_balls_of_a_material_share_their_modes() -> None:
    """Size and stiffness only scale them; another material, or a cone of other proportions, has its own."""
    ball, other = (draw_object("steel", "sphere", index=index, seed=0) for index in (0, 1))
    assert ball.size != other.size
    modes = modes_of(ball, count=20)
    assert modes_of(other, count=20) is modes
    assert not np.array_equal(
        modes_of(draw_object("cork", "sphere", index=0, seed=0), count=20).omega_K, modes.omega_K
    )
    cones = [modes_of(draw_object("steel", "cone", index=index, seed=0), count=20) for index in (0, 1)]
    assert not np.array_equal(cones[0].omega_K, cones[1].omega_K)
    with pytest.raises(ValueError, match="read-only"):
        modes.omega_K[0] = 0.0


def _is_inside(spec: object, points: np.ndarray) -> np.ndarray:
    from data.tabletop.objects import ObjectSpec

    assert isinstance(spec, ObjectSpec)
    flat = np.hypot(points[:, 0], points[:, 1])
    height = points[:, 2]
    tests = {
        "sphere": flat**2 + height**2 < spec.radius**2,
        "cube": np.abs(points).max(axis=1) < spec.radius,
        "cone": flat < spec.radius * (1 - height / spec.half_height) / 2,
        "torus": (flat - spec.radius) ** 2 + height**2 < spec.half_height**2,
    }
    return tests[spec.shape]
