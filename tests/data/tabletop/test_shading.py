"""Light, against the laws it follows."""

from __future__ import annotations

import numpy as np
import pytest

from data.tabletop.objects import draw_object
from data.tabletop.picture import take_picture
from data.tabletop.scene import solid_of
from data.tabletop.shading import _refract, to_srgb
from data.tabletop.shapes import f32, unit
from data.tabletop.textures import noise


def test_light_is_refracted_by_snells_law() -> None:
    """n₁ sin θ₁ = n₂ sin θ₂ on the way in; beyond the critical angle nothing passes on the way out."""
    angles = np.linspace(0, 1.5, 20)
    towards = f32(np.stack([np.sin(angles), np.zeros(20), -np.cos(angles)], axis=1))
    normal = f32(np.tile([0, 0, 1], (20, 1)))
    bent, passes = _refract(towards, normal, np.float32(1 / 1.5))
    np.testing.assert_allclose(bent[:, 0], np.sin(angles) / 1.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(bent, axis=1), 1, atol=1e-6)
    assert passes.all()
    _, passes = _refract(towards, normal, np.float32(1.5))
    assert passes.tolist() == (np.sin(angles) * 1.5 <= 1).tolist()


def test_srgb_of_linear_light_has_the_values_of_the_standard() -> None:
    """IEC 61966-2-1: linear 0, 0.002, 0.18 and 0.5 are 0, 7, 118 and 188; more light stays in 8 bits."""
    assert to_srgb(f32([0.0, 0.002, 0.18, 0.5]), exposure=1).tolist() == [0, 7, 118, 188]
    assert to_srgb(f32([0.9, 5.0, 1e6]), exposure=1).tolist() == sorted(
        to_srgb(f32([0.9, 5, 1e6]), exposure=1)
    )


def test_noise_repeats_and_passes_through_its_cells() -> None:
    """The block of noise repeats after 64 cells, and between two cells takes the value half-way."""
    points = f32(np.random.default_rng(0).uniform(0, 64, (50, 3)))
    np.testing.assert_allclose(
        noise(points, falloff=1.5), noise(points + f32([64, -64, 128]), falloff=1.5), atol=2e-3
    )
    ends = noise(f32([[5, 6, 7], [6, 6, 7], [5.5, 6, 7]]), falloff=1.5)
    assert ends[2] == pytest.approx((ends[0] + ends[1]) / 2, abs=1e-5)


def test_pictures_are_the_same_every_time_and_differ_between_objects() -> None:
    """Equal objects give equal pixels, and pictures are neither dark nor blown out nor empty."""
    for material in ("glass", "steel"):
        spec = draw_object(material, "torus", index=0, seed=0)
        picture = take_picture(spec, solid_of(spec), side=96)
        assert picture.shape == (96, 96, 3)
        assert np.array_equal(picture, take_picture(spec, solid_of(spec), side=96))
        assert 60 < picture.mean() < 200
        assert picture.std() > 12
        other = draw_object(material, "torus", index=1, seed=0)
        assert not np.array_equal(picture, take_picture(other, solid_of(other), side=96))


def test_rubber_is_duller_than_steel() -> None:
    """Polished metal mirrors the lamp, rubber scatters it: their brightest pixels differ."""
    brightest = {}
    for material in ("steel", "rubber"):
        objects = [draw_object(material, "sphere", index=i, seed=0) for i in range(5)]
        brightest[material] = np.mean([take_picture(o, solid_of(o), side=64).max() for o in objects])
    assert brightest["steel"] > brightest["rubber"] + 20


def test_unit_vectors_of_nothing_are_nothing() -> None:
    """A zero vector has no direction and must not become NaN."""
    np.testing.assert_allclose(unit(f32([[0, 0, 0], [0, 3, 4]])), [[0, 0, 0], [0, 0.6, 0.8]], atol=1e-6)
