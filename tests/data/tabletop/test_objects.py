"""What lies on the table."""

from __future__ import annotations

import numpy as np
import pytest

from data.paths import slug
from data.tabletop.materials import MATERIALS
from data.tabletop.objects import SHAPES, UNSEEN, Shape, draw_object, random_of, split_of
from data.tabletop.settings import TabletopSettings
from data.tabletop.shapes import mesh_of
from data.tabletop.world import categories


def test_unseen_pairs_leave_every_material_and_every_shape_among_the_seen() -> None:
    """A quarter of the pairs is held out, one of each material, and no material or shape as a whole."""
    seen = {(material.name, shape) for material in MATERIALS for shape in SHAPES} - UNSEEN
    assert len(UNSEEN) == len(MATERIALS) == len({material for material, _ in UNSEEN}) == 6
    assert all(sum(pair[0] == material.name for pair in seen) == 3 for material in MATERIALS)
    assert all(sum(pair[1] == shape for pair in seen) >= 4 for shape in SHAPES)


def test_category_ids_are_the_slugs_of_their_names() -> None:
    """A manifest that names the categories and one that gives their ids mean the same."""
    listed = categories(TabletopSettings())
    assert len({category.category_id for category in listed}) == 24
    assert all(category.category_id == slug(category.name) for category in listed)


def test_an_object_depends_on_its_seed_and_id_alone() -> None:
    """Equal arguments give equal objects; another seed or index gives another one."""
    one = draw_object("glass", "cone", index=3, seed=7)
    assert one == draw_object("glass", "cone", index=3, seed=7)
    assert one.object_id == "glass-cone-003"
    assert one.size != draw_object("glass", "cone", index=4, seed=7).size
    assert one.size != draw_object("glass", "cone", index=3, seed=8).size


def test_random_numbers_of_two_purposes_are_independent() -> None:
    """What the picture draws cannot shift what the sound draws."""
    spec = draw_object("steel", "cube", index=0, seed=0)
    assert random_of(spec, "image").random() == random_of(spec, "image").random()
    assert random_of(spec, "image").random() != random_of(spec, "audio").random()


@pytest.mark.parametrize("shape", SHAPES)
def test_volume_extent_and_mass_agree_with_the_mesh(shape: Shape) -> None:
    """The formulas of the record match the triangles that are rendered."""
    for index in range(4):
        spec = draw_object("stone", shape, index=index, seed=1)
        mesh = mesh_of(spec)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(spec.volume, rel=0.02)
        assert mesh.extents.max() == pytest.approx(spec.size, rel=2e-3)
        assert mesh.extents[2] == pytest.approx(2 * spec.half_height, rel=2e-3)
        assert np.abs(mesh.bounds.mean(axis=0)).max() < 1e-6
        assert spec.mass == pytest.approx(spec.volume * spec.density)


@pytest.mark.parametrize("count", [3, 4, 8, 16, 50])
def test_splits_of_a_seen_category_are_never_empty(count: int) -> None:
    """Train, val and test each hold at least one object, train the most; an unseen category is all test."""
    seen = [split_of(draw_object("glass", "cone", index=i, seed=0), count=count) for i in range(count)]
    assert set(seen) == {"train", "val", "test"}
    assert seen.count("train") >= seen.count("test") >= seen.count("val")
    unseen = [split_of(draw_object("glass", "torus", index=i, seed=0), count=count) for i in range(count)]
    assert set(unseen) == {"test"}
