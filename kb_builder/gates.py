"""Which texts are kept: pure verdicts over parsed texts, in plan order, to be run again for free."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from data.sample import Category
from kb_builder.rows import normalise
from kb_builder.tokens import TOKEN_LIMIT

NEAR_DUPLICATE = 0.7  # Jaccard similarity of character 3-grams from which two texts are one
GRID_CONTEXTS = 2

_REFUSAL = re.compile(
    r"\b(?:as an ai|language model|i(?:'m| am) (?:sorry|unable|not able)|i (?:can't|cannot|can not|won't)"
    r"|i do(?:n't| not) (?:know|have)|unable to (?:describe|provide|assist)|no information)\b",
    re.IGNORECASE,
)
_SUFFIXES = ("ical", "en", "ed", "es", "al", "ic", "y", "s", "e")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one text, and the row it repeats where it is a duplicate."""

    status: str
    dup_of: str | None = None


@dataclass(frozen=True)
class Names:
    """What a category's texts must and must not say. Words are stems, phrases are normalised."""

    own: tuple[frozenset[str], ...]  # a text must hold all stems of one of these (name or alias), if any
    rival_words: frozenset[str]
    rival_phrases: frozenset[str]


def category_names(categories: Sequence[Category]) -> dict[str, Names]:
    """For each category_id: its own names, and the words and phrases that name another category of the list.

    A *phrase* is another category's full name of two or more words. A single word is a rival only where the
    names form a grid (material × shape, colour × animal): two words are rivals if exchanging one for the
    other turns a name of the list into another one in at least `GRID_CONTEXTS` ways — wooden/steel in "…
    sphere" and "… cube". So "steel" and "cone" are rivals in a text about a wooden sphere, while among the
    thousand ImageNet names "dog", "water" or "ear" stay free to use in any text.
    """
    spellings = {category.category_id: _spellings(category) for category in categories}
    rivals = _grid_rivals({words for names in spellings.values() for words in names})
    owners: dict[str, set[str]] = defaultdict(set)
    for category_id, names in spellings.items():
        for words in names:
            if len(words) > 1:
                owners[" ".join(words)].add(category_id)
    found: dict[str, Names] = {}
    for category_id, names in spellings.items():
        stems = frozenset(_stem(word) for words in names for word in words)
        others = {_stem(rival) for words in names for word in words for rival in rivals.get(word, ())}
        own_text = " | ".join(" ".join(words) for words in names)
        found[category_id] = Names(
            own=tuple(frozenset(map(_stem, words)) for words in names),
            rival_words=frozenset(others - stems),
            rival_phrases=frozenset(
                phrase for phrase, ids in owners.items() if category_id not in ids and phrase not in own_text
            ),
        )
    return found


class CategoryGate:
    """Judges the texts of one category in plan order: what is a duplicate depends on what came before."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._longest = max((len(phrase.split()) for phrase in names.rival_phrases), default=0)
        self._exact: dict[str, str] = {}
        self._grams: list[tuple[frozenset[str], str]] = []

    @property
    def accepted(self) -> int:
        """How many texts were `ok`."""
        return len(self._exact)

    def judge(self, row_id: str, text: str | None, *, n_tokens: int, refused: bool = False) -> Verdict:
        """The verdict on one text (None: the parser found no sentence); an `ok` text is remembered."""
        if refused or (text is not None and _REFUSAL.search(text)):
            return Verdict("refusal")
        if text is None:
            return Verdict("unparsed")
        plain = normalise(text)
        words = plain.split()
        stems = set(map(_stem, words))
        if self._names.own and not any(own <= stems for own in self._names.own):
            return Verdict("no_name")
        if stems & self._names.rival_words or self._names_another(words):
            return Verdict("other_name")
        if n_tokens > TOKEN_LIMIT:
            return Verdict("too_long")
        if plain in self._exact:
            return Verdict("dup_exact", self._exact[plain])
        grams = _trigrams(plain)
        for seen, seen_id in self._grams:
            if jaccard(grams, seen) >= NEAR_DUPLICATE:
                return Verdict("dup_near", seen_id)
        self._exact[plain] = row_id
        self._grams.append((grams, row_id))
        return Verdict("ok")

    def _names_another(self, words: Sequence[str]) -> bool:
        return any(
            " ".join(words[start : start + length]) in self._names.rival_phrases
            for length in range(2, self._longest + 1)
            for start in range(len(words) - length + 1)
        )


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """|A ∩ B| / |A ∪ B|; two empty sets are equal."""
    shared = len(one & other)
    union = len(one) + len(other) - shared
    return shared / union if union else 1.0


def _trigrams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + 3] for i in range(max(1, len(text) - 2)))


def _spellings(category: Category) -> tuple[tuple[str, ...], ...]:
    """The name's and the aliases' words; `Shetland sheepdog, Shetland` is a name and an alias."""
    names: Iterable[str] = [*category.name.split(","), *category.aliases]
    return tuple(
        dict.fromkeys(words for words in (tuple(normalise(name).split()) for name in names) if words)
    )


def _grid_rivals(names: set[tuple[str, ...]]) -> dict[str, set[str]]:
    slots: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for words in names:
        for place, word in enumerate(words):
            slots[words[:place], words[place + 1 :]].add(word)
    contexts: dict[tuple[str, str], int] = defaultdict(int)
    for choices in slots.values():
        for pair in combinations(sorted(choices), 2):
            contexts[pair] += 1
    rivals: dict[str, set[str]] = defaultdict(set)
    for (one, other), count in contexts.items():
        if count >= GRID_CONTEXTS:
            rivals[one].add(other)
            rivals[other].add(one)
    return rivals


def _stem(word: str) -> str:
    """A crude stem of at least four letters: wooden meets wood, spherical spheres, rubbery rubber."""
    while True:
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 4:
                word = word.removesuffix(suffix)
                break
        else:
            return word
