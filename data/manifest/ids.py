"""When two names are one category, and the id that a name gets.

Two names are one category where they are equal after Unicode NFC, full case folding, and white space (outer
spaces away, each run of it one space): `name_key`. Nothing else joins names: signs, symbols, numbers,
accents, full-width forms and invisible characters all count.

An id is made from the names alone, never from the order of rows:

- words of letters and digits with one space between them are joined by hyphens: `Barn owl` gives `barn-owl`,
  whatever else is in the list;
- a name with other signs between its words (`T-shirt`, `car_horn`, `siren (police)`) gets the same plain
  form, unless another of the list has it too: then the one with spaces keeps it, the others get a suffix;
- every other name (`C++`, `-1`, an emoji) always has a suffix, the start of its key's SHA-256:
  `c--cedb1bac7e`.

So ids are injective; only a name of the second kind can change its id when a name like it is added.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from data.paths import is_word_mark, slug

_BETWEEN_WORDS = frozenset(" -_/|'’,.;:()&")  # signs that, in a name's middle, rarely tell classes apart
_HASH_DIGITS = 10
_SHOWN = 3
_NUMBER = re.compile(r"\+?[0-9]{1,18}([.,][0-9]{1,18})?")
# What people's tools write for "nothing"; as a category it is most likely none.
_NOTHING = frozenset({"nan", "none", "null", "<na>", "n/a", "nat"})


def spelt(name: str) -> str:
    """A name as it is shown: NFC, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """What two names of one category have in common (see the module's docstring).

    Case is folded between two normalisations, which is Unicode's canonical caseless match (D145).
    """
    folded = unicodedata.normalize("NFD", name).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def category_ids(keys: Iterable[str]) -> dict[str, str]:
    """The id of each key (`name_key`) of a list of categories: injective, and the same in any order."""
    keys = set(keys)
    plain: dict[str, list[str]] = defaultdict(list)
    stems = {key: slug(key) for key in keys}
    for key, stem in stems.items():
        if _is_spaced(key, stem) or _is_ordinary(key):
            plain[stem].append(key)
    ids = {}
    for key, stem in stems.items():
        alone = plain.get(stem) == [key]
        ids[key] = stem if alone or _is_spaced(key, stem) else id_with_hash(key)
    return ids


def _is_spaced(key: str, stem: str) -> bool:
    """Whether the key is words with single spaces: then it can be read off its slug, and no other key can."""
    return bool(key) and key == stem.replace("-", " ")


def id_with_hash(key: str) -> str:
    """The id of a key whose plain form could be another's. No plain form has two hyphens together."""
    return f"{slug(key) or 'sign'}--{hashlib.sha256(key.encode()).hexdigest()[:_HASH_DIGITS]}"


def _is_ordinary(key: str) -> bool:
    """Words of letters and digits, with nothing but usual signs between them (and `)` at the end)."""
    return (
        key[:1].isalnum()
        and (key[-1].isalnum() or key[-1] == ")" or is_word_mark(key[-1]))
        and unicodedata.normalize("NFKC", key) == key
        and all(letter.isalnum() or letter in _BETWEEN_WORDS or is_word_mark(letter) for letter in key)
    )


def best_spelling(spellings: Collection[str]) -> str:
    """The spelling that a category is shown by: of those with the fewest capitals the first by code point."""
    return min((spelt(each) for each in spellings), key=lambda each: (_capitals(each), each))


def _capitals(name: str) -> int:
    return sum(letter != letter.casefold() for letter in name)


def is_blank(name: str) -> bool:
    """Whether a name shows nothing: it has spaces and invisible characters alone."""
    return not name_key(_visible(name))


def notes_on_names(spellings: Mapping[str, Collection[str]], shown_as: Mapping[str, str]) -> list[str]:
    """What to say of the names of a list: which were joined, which look alike, which may not be meant.

    `spellings` has each key's spellings as the file has them, `shown_as` the name of its category.
    """
    joined = {key: sorted(each) for key, each in spellings.items() if len(each) > 1}
    notes = []
    if joined:
        told = [
            f"{_listed(each)} are read as one category {shown_as[key]!r}"
            for key, each in sorted(joined.items())
        ]
        notes.append(f"{_counted(len(joined), 'category')} in several spellings: {_first(told)}")
    alike: dict[str, list[str]] = defaultdict(list)
    for key in sorted(shown_as):
        alike[_looks(key)].append(shown_as[key])
    met = [_listed(each) for each in alike.values() if len(each) > 1]
    if met:
        number = sum(len(each) for each in alike.values() if len(each) > 1)
        notes.append(
            f"{number} categories differ from another by signs, zeros or invisible characters alone and stay"
            f" apart: {_first(met)}"
        )
    hidden = [_told(name) for _, name in sorted(shown_as.items()) if _hides(name)]
    if hidden:
        notes.append(f"{_counted(len(hidden), 'category name')} with invisible characters: {_first(hidden)}")
    nothing = [repr(name) for key, name in sorted(shown_as.items()) if key in _NOTHING]
    if nothing:
        notes.append(f"{', '.join(nothing)} is taken as a category; leave the cell empty where there is none")
    return notes


def _looks(key: str) -> str:
    """What a name looks like at a glance: its words, or its number without needless zeros and signs."""
    visible = _visible(key)
    if _NUMBER.fullmatch(visible):
        return f"{Decimal(visible.replace(',', '.')).normalize():f}"
    return slug(visible) or name_key(visible)


def _visible(name: str) -> str:
    return "".join(letter for letter in name if not _is_invisible(letter))


def _is_invisible(letter: str) -> bool:
    if unicodedata.category(letter) == "Cf":  # zero-width characters, soft hyphens, marks of direction
        return True
    return "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"  # variation selectors


def _hides(name: str) -> bool:
    """Whether a name has an invisible character that no script and no emoji needs."""
    return any(unicodedata.category(letter) == "Cf" and letter not in "\u200c\u200d" for letter in name)


def _told(name: str) -> str:
    """A name in quotes, with what cannot be seen in it written out."""
    shown = repr(name)
    if any(_is_invisible(letter) for letter in name) or unicodedata.normalize("NFC", name) != name:
        return ascii(name)
    return shown


def _listed(names: Iterable[str]) -> str:
    told = [_told(name) for name in names]
    if len(told) > _SHOWN + 1:
        told = [*told[:_SHOWN], f"{len(told) - _SHOWN} more"]
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _first(told: list[str]) -> str:
    rest = len(told) - _SHOWN
    return "; ".join(told[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _counted(number: int, what: str) -> str:
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"
