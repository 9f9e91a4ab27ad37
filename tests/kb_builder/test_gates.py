"""Which texts are kept, and why others are not."""

from __future__ import annotations

from itertools import product

import pytest

from data.sample import Category
from kb_builder.gates import NEAR_DUPLICATE, CategoryGate, Verdict, category_names, jaccard


def categories(*names: str) -> list[Category]:
    return [Category(category_id=name, name=name) for name in names]


GRID = categories(
    *(" ".join(pair) for pair in product(["wooden", "steel", "glass"], ["sphere", "cone", "torus"]))
)
# As they stand in ImageNet's list of a thousand.
IMAGENET = [
    Category("collie", "collie", aliases=("Scotch collie",)),
    *categories(
        "Border collie", "golden retriever", "red fox, Vulpes vulpes", "grey fox, gray fox", "red wolf"
    ),
    *categories(
        "timber wolf", "water bottle", "wine bottle", "water tower", "ear, spike", "goldfish", "wool, woolen"
    ),
    *categories("tiger cat", "tiger shark", "Egyptian cat", "wall clock", "digital clock", "digital watch"),
]


def status(text: str | None, *, of: str, among: list[Category], **given: bool) -> str:
    return CategoryGate(category_names(among)[of]).judge("r", text, n_tokens=20, **given).status


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The wooden sphere rolls over the table.", "ok"),
        ("A sphere of wood rolls over the table.", "ok"),
        ("Wooden spheres roll over the table.", "ok"),
        ("The sphere rolls over the table.", "no_name"),
        ("It rolls over the table.", "no_name"),
        ("The wooden sphere shines like steel.", "other_name"),
        ("The wooden sphere has a glassy surface.", "other_name"),
        ("The wooden sphere is a cone seen from the side.", "other_name"),
        ("The wooden sphere and its cones.", "other_name"),
        ("I'm sorry, I cannot describe the wooden sphere.", "refusal"),
        ("As an AI, I have seen no wooden sphere.", "refusal"),
        (None, "unparsed"),
    ],
)
def test_a_grid_of_names(text: str | None, verdict: str) -> None:
    """Where materials are crossed with shapes, a text names its own pair and no other material or shape."""
    assert status(text, of="wooden sphere", among=GRID) == verdict


@pytest.mark.parametrize(
    ("category", "text", "verdict"),
    [
        ("collie", "The collie is a dog with long ears and a woolen coat, fond of water.", "ok"),
        ("goldfish", "The goldfish swims in water, red and golden like a fox.", "ok"),
        ("red fox, Vulpes vulpes", "The red fox is smaller than a grey wolf.", "ok"),
        ("water bottle", "The water bottle looks like a wine glass from the wall.", "ok"),
        ("collie", "The Scotch collie herds sheep.", "ok"),
        ("Border collie", "The Border collie herds sheep.", "ok"),
        ("collie", "The collie looks like a golden retriever.", "other_name"),
        ("collie", "The collie looks like a Border collie.", "other_name"),
        ("red fox, Vulpes vulpes", "The red fox looks like a gray fox.", "other_name"),
        ("wall clock", "The wall clock beside the digital watch.", "other_name"),
    ],
)
def test_names_without_a_grid(category: str, text: str, verdict: str) -> None:
    """Among ordinary names only another full name of two or more words names another thing."""
    assert status(text, of=category, among=IMAGENET) == verdict


def test_one_exchange_is_no_grid() -> None:
    """red/grey change a fox into a fox once; from the second time on they are a grid."""
    fox = categories("red fox", "grey fox")
    text = "The red fox has a grey tail."
    assert status(text, of="red fox", among=fox) == "ok"
    assert (
        status(text, of="red fox", among=[*fox, *categories("red squirrel", "grey squirrel")]) == "other_name"
    )


def test_a_thousand_names_take_no_noticeable_work() -> None:
    """A grid of 40 × 25 has 64 rivals for each name, and not one word of the own name among them."""
    names = categories(*(f"colour{a}q thing{b}q" for a in range(40) for b in range(25)))
    found = category_names(names)["colour3q thing4q"]
    assert len(found.rival_words) == 39 + 24
    assert not found.rival_words & {word for own in found.own for word in own}


def test_duplicates_point_at_the_first() -> None:
    """Case and punctuation make no new text; a near copy is told apart from an exact one."""
    gate = CategoryGate(category_names(GRID)["wooden sphere"])
    first = "The wooden sphere has a warm brown surface with dark rings."
    assert gate.judge("a", first, n_tokens=20) == Verdict("ok")
    assert gate.judge("b", first.upper(), n_tokens=20) == Verdict("dup_exact", "a")
    assert gate.judge("c", first.replace("dark", "darker"), n_tokens=20) == Verdict("dup_near", "a")
    assert gate.judge("d", "To the ear, the wooden sphere is dull.", n_tokens=20) == Verdict("ok")
    assert gate.accepted == 2


def test_jaccard_against_sets_done_by_hand() -> None:
    """night/nacht share no 3-gram; abcd/abce share one of three."""
    grams = [
        frozenset(word[i : i + 3] for i in range(len(word) - 2))
        for word in ("night", "nacht", "abcd", "abce")
    ]
    assert jaccard(grams[0], grams[1]) == 0.0
    assert jaccard(grams[2], grams[3]) == pytest.approx(1 / 3)
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert 0.5 < NEAR_DUPLICATE < 0.9


def test_long_and_declined_texts() -> None:
    """A text that the encoder would cut is too long; a declared refusal needs no words to be one."""
    gate = CategoryGate(category_names(GRID)["wooden sphere"])
    assert gate.judge("a", "The wooden sphere.", n_tokens=257).status == "too_long"
    assert gate.judge("b", None, n_tokens=2, refused=True).status == "refusal"


def test_names_that_are_no_words() -> None:
    """A name of symbols alone cannot be asked for in a text, other scripts can."""
    odd = categories("+", "犬", "chien_loup")
    assert status("Two lines cross.", of="+", among=odd) == "ok"
    assert status("犬 barks.", of="犬", among=odd) == "ok"
    assert status("A chien loup barks.", of="chien_loup", among=odd) == "ok"
    assert status("A cat meows.", of="犬", among=odd) == "no_name"
