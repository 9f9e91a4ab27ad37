"""kb_builder.added.match: which class is which category."""

from __future__ import annotations

from data.sample import Category
from kb_builder.added.match import match_classes

CATEGORIES = [
    Category("hen", "Hen", ("chicken",)),
    Category("t-shirt", "T-shirt"),
    Category("sea-lion", "sea lion"),
    Category("tench", "tench, Tinca tinca"),
    Category("bat-animal", "bat (animal)", ("bat",)),
    Category("bat-club", "bat (club)", ("bat",)),
]


def test_names_and_aliases() -> None:
    """Capitals, spaces and the form of letters do not count; accents do."""
    found = match_classes(["HEN", "Chicken", " Tinca  Tinca", "tench, tinca tinca", "h\u00e9n"], CATEGORIES)
    assert dict(found.category_of) == {
        "HEN": "hen",
        "Chicken": "hen",
        " Tinca  Tinca": "tench",
        "tench, tinca tinca": "tench",
    }
    assert (found.unknown, found.ambiguous, found.loosely) == (("h\u00e9n",), (), ())


def test_underscores_and_hyphens() -> None:
    """They count as spaces where no class has the very name, and are listed."""
    found = match_classes(["sea_lion", "t_shirt", "ox_cart"], CATEGORIES)
    assert dict(found.category_of) == {"sea_lion": "sea-lion", "t_shirt": "t-shirt"}
    assert found.loosely == ("sea_lion", "t_shirt")
    assert found.unknown == ("ox_cart",)
    exact = match_classes(["sea_lion", "Sea lion"], CATEGORIES)
    assert dict(exact.category_of) == {"Sea lion": "sea-lion"}
    assert exact.unknown == ("sea_lion",)
    twice = match_classes(["sea_lion", "sea-lion"], CATEGORIES)
    assert dict(twice.category_of) == {}
    assert twice.unknown == ("sea_lion", "sea-lion")


def test_two_categories_fit() -> None:
    """Such a class stays out: which one is meant cannot be known."""
    found = match_classes(["bat", "bat_(club)"], CATEGORIES)
    assert found.ambiguous == ("bat",)
    assert dict(found.category_of) == {"bat_(club)": "bat-club"}
    twins = [Category("a", "ice-cream"), Category("b", "ice cream")]
    assert match_classes(["ice_cream"], twins).unknown == ("ice_cream",)
    assert dict(match_classes(["Ice-Cream"], twins).category_of) == {"Ice-Cream": "a"}


def test_order() -> None:
    """The order of the file is kept, whichever way a class was found."""
    assert list(match_classes(["t_shirt", "hen"], CATEGORIES).category_of) == ["t_shirt", "hen"]
