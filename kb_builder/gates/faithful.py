"""Faithfulness gate of the describer `facts+llm`: keeps a text only if it agrees with the measured facts.

The describer is for sensors that no public multimodal model has seen: a text LLM rephrases the measured
sentence and never sees the sample. By its words, a text is kept if

- every figure in it is one of the measured figures;
- it has no colour and no graded word (loud, dull, smooth ...) in place of the one that was measured;
- it names no category of the knowledge base that the facts do not name: the LLM cannot know the thing;
- it keeps at least one measured word.

An invented object that is no category of the knowledge base is not detected, so the temperature should be
low. A sample none of whose tries is kept has its measured sentence instead.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from data.sample import Category
from kb_builder.gates.names import normalise, stem

_FIGURE = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class _Lexicon:
    """`faithful.toml`: scales of grades (sets of synonyms), and the words of every measured sentence."""

    scales: tuple[tuple[frozenset[str], ...], ...]
    frame: frozenset[str]


@cache
def _lexicon() -> _Lexicon:
    content = tomllib.loads(
        resources.files(__package__).joinpath("faithful.toml").read_text(encoding="utf-8")
    )
    return _Lexicon(
        scales=tuple(tuple(frozenset(grade.split("|")) for grade in scale) for scale in content["scales"]),
        frame=frozenset(content["frame"].split()),
    )


@dataclass(frozen=True)
class NamePhrases:
    """The names and aliases of a knowledge base's categories, as stems; `longest` in words."""

    phrases: frozenset[tuple[str, ...]]
    longest: int


def category_phrases(categories: Iterable[Category]) -> NamePhrases:
    """The names that a text may use only if the measured facts use them."""
    names = (name for category in categories for name in (*category.name.split(","), *category.aliases))
    phrases = frozenset(stems for stems in map(_stems, names) if stems)
    return NamePhrases(phrases, max(map(len, phrases), default=0))


def invented_name(text: str, facts: str, names: NamePhrases) -> str | None:
    """The first category that a text names and the facts do not, in the text's words; or None."""
    measured = _named(facts, names)
    return next((said for phrase, said in _named(text, names).items() if phrase not in measured), None)


def contradiction(text: str, facts: str) -> str | None:
    """Why a text disagrees with the measured facts, or None."""
    measured = _figures(facts)
    for figure, value in _figures(text).items():
        if value not in measured.values():
            return f"the figure {figure} was not measured"
    said, known = set(_words(text)), set(_words(facts))
    for scale in _lexicon().scales:
        if not any(grade & known for grade in scale):
            continue
        for grade in scale:
            if (wrong := grade & said) and not grade & known:
                right = ", ".join(sorted(word for other in scale for word in other & known))
                return f"says {min(wrong)!r} where {right} was measured"
    if not said & known - _lexicon().frame:
        return "keeps no measured word"
    return None


def _named(text: str, names: NamePhrases) -> dict[tuple[str, ...], str]:
    """The categories that a text names, and by which words."""
    words = normalise(text).split()
    stems = tuple(map(stem, words))
    return {
        stems[start : start + length]: " ".join(words[start : start + length])
        for length in range(1, names.longest + 1)
        for start in range(len(stems) - length + 1)
        if stems[start : start + length] in names.phrases
    }


def _figures(text: str) -> dict[str, float]:
    """The figures of a text as they are written, and their values: 1, 1.0 and 1.00 are one value."""
    return {figure: float(figure.replace(",", "")) for figure in _FIGURE.findall(text)}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:-[a-z]+)*|\d+(?:\.\d+)?", text.casefold())


def _stems(text: str) -> tuple[str, ...]:
    return tuple(map(stem, normalise(text).split()))
