"""A known statement about a category, with where it is known from, and the texts that may say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from data.sample import Category

Source = Literal["notes", "gloss", "model"]

_CLAUSES = re.compile(r"(?<=[.!?])\s+|\s*;\s*|\n+")
_ARTICLE = re.compile(r"(?:an?|the|one|any|some) ")
# A verb in the third person, perhaps after an adverb: "rings", "hardly warms"; not "glass", "various".
_ADVERBS = "hardly|only|never|often|always|usually|mostly|rarely|also|almost|barely"
_VERB = re.compile(rf"(?:(?:{_ADVERBS}) )?[a-z]*(?<![sui])s\b|(?:has|does) ")
_CAPITAL = re.compile(r"[A-Z][a-z]*(?:\s|$)")  # of a sentence: not "TV", not "X-ray"
_BAR = "|"  # parts an opening from the words that complete it


@dataclass(frozen=True, slots=True)
class Opening:
    """The start of a text, with `{name}`, and the words that must follow; "": the model chooses them."""

    start: str
    then: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """One statement. `says` is all that is known: a phrase of notes or gloss, or the chosen words."""

    source: Source
    id: str  # tells the statements of one source apart
    thing: str  # what it is said of: the name, or a word of it
    says: str
    openings: tuple[Opening, ...]
    aspect: str = "use"
    modality: str | None = None  # None: whatever the modality
    also: tuple[str, ...] = ()
    clause: str = ""  # the verb before `says`, for texts of two statements; "" where it has one
    whole: bool = True  # it may stand in a text as it is


def opening(written: str, says: str) -> Opening:
    """An opening as it is written in choices.toml, completed by what is known."""
    start, _, then = written.partition(_BAR)
    return Opening(start, f"{then} {says}".strip())


def from_notes(category: Category, name: str) -> list[Known]:
    """The statements of a category's notes: sentences, and their parts between semicolons."""
    return _phrases("notes", name, category.notes or "")


def from_gloss(thing: str, gloss: str) -> list[Known]:
    """The statements of a dictionary's gloss about a thing."""
    return _phrases("gloss", thing, gloss)


def _phrases(source: Source, thing: str, text: str) -> list[Known]:
    clauses = filter(None, (clause.strip(" .!?;,") for clause in _CLAUSES.split(text)))
    return [_phrase(source, str(number), thing, clause) for number, clause in enumerate(clauses, start=1)]


def _phrase(source: Source, number: str, thing: str, says: str) -> Known:
    """A statement that is repeated, if it is a whole clause, and that the model puts into its own words.

    A phrase says what the thing is, unless it begins with a verb ("rings when struck"). A gloss without an
    article ("black birds") is no clause: the model alone makes one of it.
    """
    says = says[:1].lower() + says[1:] if _CAPITAL.match(says) else says
    says = says.removeprefix("it ")
    verb = "" if _VERB.match(says) else "is"
    if source == "gloss" and not _ARTICLE.match(says):
        return Known(source, number, thing, says, (Opening("The {name}"),), whole=False)
    exact, free = Opening("The {name}", f"{verb} {says}".strip()), Opening(f"The {{name}} {verb}".rstrip())
    return Known(source, number, thing, says, (exact, free), clause=verb)
