"""Texts without their category's name: what goes, what stays, and when nothing is left."""

from __future__ import annotations

import pytest

from data.sample import Category
from kb_builder.gates.names import NameRules, category_names, normalise, stem
from kb_builder.gates.without_name import without_name


def _rules(name: str, *aliases: str) -> NameRules:
    return category_names([Category("own", name, aliases), Category("other", "teapot")])["own"]


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("dog", "A dog barks at night.", "A thing barks at night."),
        ("dog", "Dogs, and a dog's paws, leave prints.", "Things, and a thing's paws, leave prints."),
        ("otter", "An otter swims; otters dive.", "A thing swims; things dive."),
        ("wooden sphere", "The wooden sphere rolls far.", "The thing rolls far."),
        ("wooden sphere", "Wooden spheres show grain.", "Things show grain."),
        ("wooden sphere", "A sphere made of wood, with rings.", "A thing made of, with rings."),
        ("wooden sphere", "The wood of it shows dark rings.", "The of it shows dark rings."),
        ("fire_engine", "Fire-engines are red.", "Things are red."),
        ("Border collie", "Collies herd sheep.", "Things herd sheep."),
        ("bird of paradise", "The bird of paradise has plumes.", "The thing has plumes."),
        (
            "bird of paradise",
            "Of all birds it has the longest plumes.",
            "Of all it has the longest plumes.",
        ),
        ("wolf", "Wolves howl.", "Things howl."),
        ("café", "The CAFÉ serves cake.", "The thing serves cake."),
        ("cat", "A category of furry pets.", "A category of furry pets."),
    ],
)
def test_the_name_and_its_inflections_go(name: str, text: str, left: str) -> None:
    """In any case, plural, possessive and order; a longer word that holds the name stays."""
    assert without_name(text, _rules(name)) == left


def test_aliases_go_too() -> None:
    """A name after a comma is one as well."""
    rules = _rules("sea lion, eared seal", "Otaria")
    assert (
        without_name("Sea lions, eared seals, the otaria: all bark.", rules)
        == "Things, things, the thing: all bark."
    )


@pytest.mark.parametrize(
    "text", ["The dog is a dog.", "A dog looks beautiful and unique.", "Dogs!", "What the dog does."]
)
def test_a_text_that_says_nothing_else_has_nothing_left(text: str) -> None:
    """Function words and generic words describe nothing."""
    assert without_name(text, _rules("dog")) is None


@pytest.mark.parametrize("name", ["wooden sphere", "bird of paradise", "Shetland sheepdog, Sheltie", "x-ray"])
def test_no_stem_of_the_name_is_left(name: str) -> None:
    """Whatever the spelling: that is what makes a gain one by description."""
    rules = _rules(name)
    words = [word for spelling in rules.spellings for word in spelling.split()]
    for made in (" ".join(words), " ".join(reversed(words)), ", ".join(f"{word}s" for word in words)):
        left = without_name(f"Here {made} glows red by the river.", rules)
        assert left is not None
        stems = set(map(stem, normalise(left).split()))
        assert not any(own <= stems for own in rules.own)
        assert {"glow", "red"} <= stems
