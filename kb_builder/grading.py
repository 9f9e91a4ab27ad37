"""Numbers to words."""

from __future__ import annotations

from collections.abc import Sequence


def grade(value: float, steps: Sequence[tuple[float, str]], last: str) -> str:
    """The word of the first step whose upper limit lies above the value; `last` above all limits."""
    return next((word for limit, word in steps if value < limit), last)


def with_article(phrase: str) -> str:
    """`an old photo`, `a photo`."""
    return f"{'an' if phrase[:1] in set('aeiou') else 'a'} {phrase}"
