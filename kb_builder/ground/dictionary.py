"""The dictionary: glosses of nouns, from WordNet's 21,844 synsets in ImageNet (data files of package timm).

A name may have several senses, and the dictionary has not all of them: of "wind" it knows the instrument.
They are not guessed: the category's notes, parent and aliases decide, by the words that they share with a
sense's gloss and other names; without those, the only sense whose first name it is. `Sense.how` says which
it was.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from data.errors import MissingDependencyError
from data.sample import Category
from data.wordnet import synset_glosses, synset_lemmas
from kb_builder.gates.names import WORD_LISTS, normalise, singular, stem

_STOP = frozenset(WORD_LISTS["hollow"]["stop"].split()) | frozenset(WORD_LISTS["hollow"]["generic"].split())


@dataclass(frozen=True, slots=True)
class Sense:
    """A meaning of a word: its gloss, and how it was chosen among how many."""

    word: str
    gloss: str
    how: str


@dataclass(frozen=True, slots=True)
class _Entry:
    gloss: str
    names: tuple[str, ...]  # normalised, the first one first


@cache
def _entries() -> dict[str, tuple[_Entry, ...]]:
    """Normalised name -> its senses; empty where timm's files are missing."""
    try:
        lemmas, glosses = synset_lemmas(), synset_glosses()
    except MissingDependencyError:
        return {}
    found: dict[str, list[_Entry]] = defaultdict(list)
    for synset, listed in lemmas.items():
        names = tuple(dict.fromkeys(map(normalise, listed.split(","))))
        if gloss := glosses.get(synset):
            for name in names:
                found[name].append(_Entry(gloss, names))
    return {name: tuple(entries) for name, entries in found.items()}


def look_up(category: Category, name: str, *, head: bool = False) -> tuple[Sense | None, str | None]:
    """The sense of a category's name, and one line where it was not certain.

    With `head`, else of its last word, which must be a thing by itself: a "clock tick" is no tick. The line
    says what was chosen among how many senses, or that none was.
    """
    *first, last = normalise(name).split(" ")
    for word in dict.fromkeys(
        [
            " ".join([*first, last]),
            " ".join([*first, singular(last)]),
            *([last, singular(last)] if head else []),
        ]
    ):
        entries = _entries().get(word, ())
        if not entries:
            continue
        entry, how = _choose(word, entries, category)
        if entry is None:
            senses = "one sense" if len(entries) == 1 else f"{len(entries)} senses"
            return None, f"{word}: {senses}, none taken; `notes` or `parent` would decide"
        if len(entries) == 1:
            return Sense(word, entry.gloss, how), None
        return Sense(word, entry.gloss, how), f"{word}: {len(entries)} senses, took {entry.gloss!r} ({how})"
    return None, None


def _choose(word: str, entries: tuple[_Entry, ...], category: Category) -> tuple[_Entry | None, str]:
    given = " ".join(filter(None, [category.notes, category.parent, *category.aliases]))
    known = _stems(given) - _stems(word)
    if known:
        shared = [len(known & _stems(" ".join([entry.gloss, *entry.names]))) for entry in entries]
        best = max(shared)
        if best and shared.count(best) == 1:
            return entries[shared.index(best)], "its notes, parent or aliases share words with it"
    first = [entry for entry in entries if entry.names[0] == word]
    if len(first) == 1 and (not known or len(entries) == 1):
        return first[0], "the only one that is called so first"
    return None, ""


def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in normalise(text).split() if word not in _STOP)
