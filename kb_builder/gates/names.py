"""Category names in texts: how a name is spelled, and which words name another category."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import combinations

from data.sample import Category

GRID_CONTEXTS = 2

WORD_LISTS = tomllib.loads(resources.files(__package__).joinpath("gates.toml").read_text(encoding="utf-8"))
_IRREGULAR: Mapping[str, str] = WORD_LISTS["plurals"]
_SUFFIXES = ("ical", "en", "ed", "es", "al", "ic", "y", "s", "e")
_NOT_WORD = re.compile(r"[\W_]+")
_ASCII = "".join(map(chr, range(128)))
_SIGNS_TO_SPACES = str.maketrans({letter: " " for letter in _ASCII if not letter.isalnum()})
# NFKC sorts the combining marks of a letter: a sequence of thousands takes minutes. Unicode's stream-safe
# form (UAX #15, section 13) breaks such a sequence after 30.
_LONG, _MOST_MARKS, _CUT = 2_000, 30, "\u034f"


@dataclass(frozen=True)
class NameRules:
    """What a category's texts must and must not say. Words are stems, phrases are normalised."""

    category_id: str
    spellings: tuple[str, ...]  # as they are written, for messages
    own: tuple[frozenset[str], ...]  # a text must hold all stems of one of these (name or alias), if any
    rival_words: frozenset[str]
    phrases: Mapping[str, frozenset[str]]  # of all categories: a name of several words -> whose it is
    heads: frozenset[str]  # the first words of the phrases
    longest: int  # words of the longest phrase


def category_names(categories: Sequence[Category]) -> dict[str, NameRules]:
    """For each category_id: its own names, and the words and phrases that name another category of the list.

    A *phrase* is another category's full name of two or more words. A single word is a rival only where the
    names form a grid (material × shape, colour × animal): two words are rivals if exchanging one for the
    other turns a name of the list into another one in at least `GRID_CONTEXTS` ways — wooden/steel in "…
    sphere" and "… cube". So "steel" and "cone" are rivals in a text about a wooden sphere, while among the
    thousand ImageNet names any text may say "dog", "water" or "ear".
    """
    spellings = {category.category_id: _spellings(category) for category in categories}
    rivals = grid_rivals({words for names in spellings.values() for words in names})
    owners: dict[str, set[str]] = defaultdict(set)
    for category_id, names in spellings.items():
        for words in names:
            if len(words) > 1:
                owners[" ".join(words)].add(category_id)
    phrases = {phrase: frozenset(ids) for phrase, ids in owners.items()}
    heads = frozenset(phrase.split(" ", 1)[0] for phrase in phrases)
    longest = max((len(phrase.split()) for phrase in phrases), default=0)
    found: dict[str, NameRules] = {}
    for category_id, names in spellings.items():
        stems = frozenset(stem(word) for words in names for word in words)
        others = {stem(rival) for words in names for word in words for rival in rivals.get(word, ())}
        found[category_id] = NameRules(
            category_id=category_id,
            spellings=tuple(" ".join(words) for words in names),
            own=tuple(frozenset(map(stem, words)) for words in names),
            rival_words=frozenset(others - stems),
            phrases=phrases,
            heads=heads,
            longest=longest,
        )
    return found


def _spellings(category: Category) -> tuple[tuple[str, ...], ...]:
    """The name's and the aliases' words; `Shetland sheepdog, Shetland` is a name and an alias."""
    names: Iterable[str] = [*category.name.split(","), *category.aliases]
    return tuple(
        dict.fromkeys(words for words in (tuple(normalise(name).split()) for name in names) if words)
    )


def grid_rivals(names: set[tuple[str, ...]]) -> dict[str, set[str]]:
    """For each word of names that form a grid, the words that replace it: see `category_names`."""
    slots: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for words in names:
        for place, word in enumerate(words):
            slots[words[:place], words[place + 1 :]].add(word)
    # Names of one word can all replace each other: one context for each pair. Not counted pair by pair, as
    # 10,000 names have 50 million pairs.
    alone = slots.pop(((), ()), set())
    contexts: dict[tuple[str, str], int] = defaultdict(int)
    for choices in slots.values():
        for pair in combinations(sorted(choices), 2):
            contexts[pair] += 1
    rivals: dict[str, set[str]] = defaultdict(set)
    for (one, other), count in contexts.items():
        if count + (one in alone and other in alone) >= GRID_CONTEXTS:
            rivals[one].add(other)
            rivals[other].add(one)
    return rivals


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A crude stem: the singular without suffixes, at least four letters: wooden, wood; wolves, wolf."""
    word = singular(word)
    while True:
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 4:
                word = word.removesuffix(suffix)
                break
        else:
            return word


def singular(word: str) -> str:
    """The singular of a word in lower case, by its ending; irregular ones by a list."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 5 and word.endswith("men"):
        return word[:-2] + "an"
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "zes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def normalise(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, words only, single spaces."""
    if text.isascii():  # NFKC changes nothing
        return " ".join(text.lower().translate(_SIGNS_TO_SPACES).split())
    if len(text) > _LONG:
        text = _break_mark_sequences(text)
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _break_mark_sequences(text: str) -> str:
    pieces: list[str] = []
    marks = 0
    for letter in text:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks > _MOST_MARKS:
            pieces.append(_CUT)
            marks = 1
        pieces.append(letter)
    return "".join(pieces)
