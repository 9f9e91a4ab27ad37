"""The catalogue notes."""

from __future__ import annotations

import re

from data.tabletop.materials import MATERIALS
from data.tabletop.notes import note
from data.tabletop.objects import SHAPES, draw_object


def test_no_note_holds_a_word_of_its_category_name() -> None:
    """Neither the material's nor the shape's own word appears, in any of a thousand notes."""
    for material in MATERIALS:
        for shape in SHAPES:
            for index in range(40):
                text = note(draw_object(material.name, shape, index=index, seed=0))
                assert not set(re.findall(r"[a-z]+", text.lower())) & {material.name, shape, f"{shape}s"}, (
                    text
                )


def test_notes_are_the_same_every_time_and_hardly_ever_alike() -> None:
    """Equal objects give equal notes; those of a category differ in words and in measured facts."""
    objects = [draw_object("stone", "torus", index=i, seed=0) for i in range(60)]
    notes = [note(one) for one in objects]
    assert notes == [note(one) for one in objects]
    assert len(set(notes)) >= 58


def test_a_note_gives_the_measured_size() -> None:
    """The length in the note is the object's, to the rounding of the note."""
    for index in range(20):
        spec = draw_object("wooden", "sphere", index=index, seed=0)
        length = re.search(r"(\d+(?:\.\d)?) cm", note(spec))
        assert length is not None
        assert abs(float(length.group(1)) - 100 * spec.size) <= 0.51
