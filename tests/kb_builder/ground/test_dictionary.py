"""The dictionary: which sense of a name counts, and what is said where that is not certain."""

from __future__ import annotations

import pytest

from data.sample import Category
from data.wordnet import synset_glosses, synset_lemmas
from kb_builder.ground.dictionary import look_up
from kb_builder.ground.known import Opening, from_gloss, from_notes


def _category(name: str, **other: str) -> Category:
    return Category("c", name, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["zebra", "Helicopter", "sea lion", "two helicopters", "penguins"])
def test_a_name_has_a_gloss(name: str) -> None:
    """In any case, and in the plural; a name of several words that is one noun is looked up whole."""
    sense, _ = look_up(_category(name), name)
    if name == "two helicopters":
        assert sense is None
        sense, _ = look_up(_category(name), name, head=True)
    assert sense is not None
    assert sense.gloss in synset_glosses().values()
    assert sense.word in {"zebra", "helicopter", "sea lion", "penguin"}


def test_the_last_word_counts_only_where_it_is_a_thing_by_itself() -> None:
    """A cone in a grid of materials and shapes, not the tick of a clock; nor the wind among instruments."""
    assert look_up(_category("clock tick"), "clock tick")[0] is None
    assert look_up(_category("wind"), "wind")[0] is None
    sense, _ = look_up(_category("wooden cone"), "wooden cone", head=True)
    assert sense is not None
    assert "tapers" in sense.gloss or "taper" in sense.gloss


def test_an_unknown_word_has_none() -> None:
    """A code, an adjective, a name in another script."""
    for name in ("PX-1402", "wooden", "собака", "..."):
        assert look_up(_category(name), name) == (None, None)


def test_notes_and_parent_decide_among_senses() -> None:
    """By shared words, and a line says so; without them an ambiguous name has no gloss."""
    several = [each for each in synset_lemmas().values() if "ball" in each.split(", ")]
    assert len(several) > 2
    none, line = look_up(_category("ball"), "ball")
    assert none is None
    assert line is not None
    assert f"ball: {len(several)} senses, none taken" in line
    for notes, word in (("it is thrown, hit or kicked in games", "kicked"), ("shot by a musket", "musket")):
        sense, line = look_up(_category("ball", notes=notes), "ball")
        assert sense is not None
        assert word in sense.gloss
        assert line is not None
        assert "notes" in line
    sense, _ = look_up(_category("ball", parent="projectile"), "ball")
    assert sense is not None
    assert "projectile" in sense.gloss


def test_the_sense_that_is_called_so_first_is_taken_without_notes() -> None:
    """A cube is one by its first name, a block is a cube by its second; the choice is said."""
    sense, line = look_up(_category("cube"), "cube")
    assert sense is not None
    assert "hexahedron" in sense.gloss
    assert line is not None
    assert "called so first" in line


def test_notes_and_glosses_become_statements() -> None:
    """One for each sentence and each part between semicolons, without the full stop."""
    category = _category("x1", notes="A ball of turned oak. It knocks when tapped; warm to the hand.")
    known = from_notes(category, "x1")
    assert [(each.says, each.clause) for each in known] == [
        ("a ball of turned oak", "is"),
        ("knocks when tapped", ""),
        ("warm to the hand", "is"),
    ]
    verbs = {"hardly warms in the sun": "", "glass all over": "is", "has a hole": "", "various in size": "is"}
    assert {says: from_notes(_category("x", notes=says), "x")[0].clause for says in verbs} == verbs
    assert {(each.source, each.thing, each.modality) for each in known} == {("notes", "x1", None)}
    assert known[0].openings == (Opening("The {name}", "is a ball of turned oak"), Opening("The {name} is"))
    assert from_notes(_category("x1"), "x1") == []
    (gloss,) = from_gloss("cone", "a shape that tapers")
    assert (gloss.source, gloss.says, gloss.whole) == ("gloss", "a shape that tapers", True)
    (plural,) = from_gloss("crow", "black birds having a raucous call")
    assert (plural.openings, plural.whole) == ((Opening("The {name}"),), False)
