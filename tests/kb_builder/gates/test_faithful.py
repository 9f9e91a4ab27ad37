"""kb_builder.gates.faithful: what an LLM says of measurements is held to them."""

from __future__ import annotations

import pytest

from data.sample import Category
from kb_builder.facts.words import COLOUR_NAMES
from kb_builder.gates.faithful import category_phrases, contradiction, invented_name

STRIKE = (
    "A struck sound of 1.0 seconds: a loud, bright ring that fades within 1.20 seconds; a tone at 440 Hz."
)
PICTURE = (
    "A picture of a small, compact object in dark red, smooth, on a grey background; the picture is bright."
)


@pytest.mark.parametrize(
    "text",
    [
        "A loud, bright ring with a clear tone at 440 Hz fades within 1.2 seconds.",
        "For 1 second one hears a bright ring.",
        "Something rings, loud and clear.",
    ],
)
def test_a_true_text_passes(text: str) -> None:
    """The same figures in other spellings, fewer facts, and other function words are no contradiction."""
    assert contradiction(text, STRIKE) is None


@pytest.mark.parametrize(
    ("text", "facts", "reason"),
    [
        ("A loud ring at 441 Hz.", STRIKE, "the figure 441 was not measured"),
        ("A loud ring that lasts 12 seconds.", STRIKE, "the figure 12 was not measured"),
        ("A quiet ring.", STRIKE, "says 'quiet' where loud was measured"),
        ("A loud, dull ring.", STRIKE, "says 'dull' where bright was measured"),
        ("A loud knock.", STRIKE, "says 'knock' where ring was measured"),
        ("A small blue object.", PICTURE, "says 'blue' where grey, red was measured"),
        ("A large object in dark red.", PICTURE, "says 'large' where small was measured"),
        ("A lovely thing to look at.", PICTURE, "keeps no measured word"),
    ],
)
def test_a_text_that_leaves_the_facts_is_told_why(text: str, facts: str, reason: str) -> None:
    """Other figures, other grades of a measured scale, and empty words each have their reason."""
    assert contradiction(text, facts) == reason


def test_a_grade_that_nobody_measured_is_free() -> None:
    """Of a scale that the facts do not use, nothing is known to be wrong."""
    assert contradiction("A loud noise of 2.0 seconds.", "A changing sound of 2.0 seconds.") is None


def test_the_colour_scale_knows_every_colour_word() -> None:
    """Whatever colour the facts can name excludes the others."""
    words = {name.split()[-1] for name in COLOUR_NAMES}
    for word in words:
        other = "red" if word != "red" else "blue"
        assert contradiction(f"An object in {other}.", f"An object in {word}.") is not None


def test_invented_names() -> None:
    """A category of the knowledge base may be named only where the facts use its words."""
    names = category_phrases(
        [Category("a", "steel bell, chime"), Category("b", "ring"), Category("c", "cat", aliases=("tabby",))]
    )
    assert invented_name("A steel bell rings, loud and bright.", STRIKE, names) == "steel bell"
    assert invented_name("Two tabbies ring.", STRIKE, names) == "tabbies"
    assert invented_name("A chime.", STRIKE, names) == "chime"
    assert invented_name("A loud ring of steel.", STRIKE, names) is None
    assert invented_name("Anything.", STRIKE, category_phrases([])) is None
