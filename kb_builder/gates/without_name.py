"""Texts without their category's name: what is left describes, or says nothing.

The evaluation without class names (Ma et al., arXiv 2412.11917) gives each category its name once, and all
other texts without it: repeating a name in other words helps by itself, whatever the words say (Roth et al.,
ICCV 2023), and here it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kb_builder.gates.names import WORD_LISTS, NameRules, normalise, singular, stem

_WORD = re.compile(r"[^\W_]+")
_JOINS = re.compile(r"[\s_-]*")  # what may stand between two words of a name
_STOP = frozenset(WORD_LISTS["hollow"]["stop"].split())
_EMPTY = _STOP | frozenset(WORD_LISTS["hollow"]["generic"].split())
_ARTICLE = re.compile(r"\b([Aa])n (?=things?\b)")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"\s+(?=[.,;:!?)])")


def without_name(text: str, names: NameRules) -> str | None:
    """A text without the words of its category's names, or None where no word is left that describes.

    Words are compared by their stems, as in the gate that requires the name: so inflections go too, and of a
    name of several words each of them, but for function words ("of"). A name, or its last word, becomes
    "thing"; its other words are left out: of "Wooden spheres are turned of wood" is left "Things are turned
    of".
    """
    found = list(_WORD.finditer(text))
    is_name = _named([_stem(match[0]) for match in found], names)
    if not any(_describes(match[0]) for match, named in zip(found, is_name, strict=True) if not named):
        return None
    heads = frozenset().union(*(_stems(spelling.split()[-1]) for spelling in names.spellings))
    pieces: list[str] = []
    end = place = 0
    while place < len(found):
        if not is_name[place]:
            place += 1
            continue
        last = place
        while last + 1 < len(found) and is_name[last + 1] and _are_joined(text, found[last], found[last + 1]):
            last += 1
        thing = _thing(found[last][0]) if _stem(found[last][0]) in heads else ""
        pieces += [text[end : found[place].start()], thing]
        end, place = found[last].end(), last + 1
    return _tidy("".join([*pieces, text[end:]]))


def _named(stems: Sequence[str], names: NameRules) -> list[bool]:
    """Which words of a text, given by their stems, belong to a name."""
    words = {word for spelling in names.spellings for word in spelling.split()} - _STOP
    own = frozenset().union(*map(_stems, words))
    is_name = [each in own for each in stems]
    for spelling in names.spellings:  # "bird of paradise": its function words too
        whole = [stem(word) for word in spelling.split()]
        for start in range(len(stems) - len(whole) + 1):
            if stems[start : start + len(whole)] == whole:
                is_name[start : start + len(whole)] = [True] * len(whole)
    return is_name


def _stems(word: str) -> frozenset[str]:
    """The stems of a word and of its plurals, which differ for some: collie, collies."""
    return frozenset({stem(word), stem(f"{word}s"), stem(f"{word}es")})


def _stem(word: str) -> str:
    return stem(normalise(word) or word)


def _describes(word: str) -> bool:
    return normalise(word) not in _EMPTY


def _are_joined(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    return _JOINS.fullmatch(text, one.end(), other.start()) is not None


def _thing(word: str) -> str:
    plain = normalise(word)
    return "thing" if singular(plain) == plain else "things"


def _tidy(text: str) -> str:
    text = _SPACES.sub(" ", _ARTICLE.sub(r"\1 ", text))
    text = _SPACE_BEFORE.sub("", text).strip()
    return text[:1].upper() + text[1:]
