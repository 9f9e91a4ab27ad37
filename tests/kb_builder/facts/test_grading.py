"""kb_builder.facts.words: numbers to words."""

from __future__ import annotations

import pytest

from kb_builder.facts.words import grade, with_article


@pytest.mark.parametrize(
    ("value", "word"), [(-1.0, "low"), (0.0, "low"), (1.0, "middle"), (2.0, "high"), (9.0, "high")]
)
def test_a_step_ends_below_its_limit(value: float, word: str) -> None:
    """A value at a limit belongs to the next step."""
    assert grade(value, [(1.0, "low"), (2.0, "middle")], "high") == word


def test_articles() -> None:
    """A phrase that begins with a vowel takes `an`."""
    assert with_article("even, round thing") == "an even, round thing"
    assert with_article("round thing") == "a round thing"
