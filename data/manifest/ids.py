"""Category ids: which names are the same category, and how an id is derived from a name.

Two names are the same category if they are equal after Unicode NFC, full case folding and normalised white
space (outer spaces dropped, each run a single space): `name_key`. Nothing else is ignored: punctuation,
symbols, numbers, accents, full-width forms and invisible characters all count.

Ids depend on the set of names, never on the order of rows:

- words of letters and digits, separated by single spaces, are joined by hyphens: `Barn owl` always gives
  `barn-owl`;
- a name with other signs between its words (`T-shirt`, `car_horn`, `siren (police)`) gets the same plain
  form, unless another name of the list has it too: then the one with spaces keeps it, the others get a
  suffix;
- every other name (`C++`, `-1`, an emoji) always has a suffix, the start of the SHA-256 of its key:
  `c--cedb1bac7e`.

So different names have different ids; only a name of the second kind can change its id when a similar name is
added.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from data.manifest.doubts import in_latin, is_nothing, is_rewritten, mixes_scripts, wrongly_decoded
from data.paths import is_word_mark, slug

_BETWEEN_WORDS = frozenset(" -_/|'’,.;:()&")  # signs within a name that rarely distinguish classes
_HASH_DIGITS = 10
_SHOWN = 3
_NUMBER = re.compile(r"\+?[0-9]{1,18}([.,][0-9]{1,18})?")


def normal_spelling(name: str) -> str:
    """A name as displayed: NFC, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """The key of a name: equal for two names of the same category (see the module's docstring).

    Case is folded between two normalisations: Unicode's canonical caseless match (definition D145).
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
    """Whether the key is words with single spaces: then no other key of that kind has its slug."""
    return bool(key) and key == stem.replace("-", " ")


def id_with_hash(key: str) -> str:
    """The id of a key whose plain form is ambiguous. No plain form contains two hyphens in a row."""
    return f"{slug(key) or 'sign'}--{hashlib.sha256(key.encode()).hexdigest()[:_HASH_DIGITS]}"


def _is_ordinary(key: str) -> bool:
    """Whether a key is words of letters and digits with only common signs between, and perhaps a last `)`."""
    return (
        key[:1].isalnum()
        and (key[-1].isalnum() or key[-1] == ")" or is_word_mark(key[-1]))
        and unicodedata.normalize("NFKC", key) == key
        and all(letter.isalnum() or letter in _BETWEEN_WORDS or is_word_mark(letter) for letter in key)
    )


def best_spelling(spellings: Collection[str]) -> str:
    """The spelling used for display: fewest capitals first, then lowest by code point."""
    return min((normal_spelling(each) for each in spellings), key=lambda each: (_capitals(each), each))


def _capitals(name: str) -> int:
    return sum(letter != letter.casefold() for letter in name)


def is_blank(name: str) -> bool:
    """Whether a name consists of nothing but spaces and invisible characters."""
    return not name_key(_visible(name))


def notes_on_names(spellings: Mapping[str, Collection[str]], shown_as: Mapping[str, str]) -> list[str]:
    """Notes on the names of a list: spellings that were merged, names that look alike, names to check.

    `spellings`: for each key, its spellings in the file; `shown_as`: the displayed name of its category.
    """
    joined = {key: sorted(each) for key, each in spellings.items() if len(each) > 1}
    notes = []
    if joined:
        merged = [
            f"{_listed(each)} are read as one category {shown_as[key]!r}"
            for key, each in sorted(joined.items())
        ]
        notes.append(f"{_counted(len(joined), 'category')} in several spellings: {_joined_examples(merged)}")
    alike: dict[str, list[str]] = defaultdict(list)
    for key in sorted(shown_as):
        alike[_look_key(key)].append(shown_as[key])
    similar = [_listed(each, look_alike=True) for each in alike.values() if len(each) > 1]
    if similar:
        number = sum(len(each) for each in alike.values() if len(each) > 1)
        notes.append(
            f"{number} categories differ from another only in signs, zeros, invisible characters or letters"
            f" that look the same, and stay separate: {_joined_examples(similar)}"
        )
    hidden = [_quoted(name) for _, name in sorted(shown_as.items()) if _hides(name)]
    if hidden:
        notes.append(
            f"{_counted(len(hidden), 'category name')} with invisible characters: {_joined_examples(hidden)}"
        )
    mixed = [ascii(name) for _, name in sorted(shown_as.items()) if mixes_scripts(name)]
    if mixed:
        notes.append(
            f"{_counted(len(mixed), 'category name')} with Latin and Cyrillic letters in one word:"
            f" {_joined_examples(mixed)}"
        )
    garbled = [f"{name!r} {why}" for _, name in sorted(shown_as.items()) if (why := wrongly_decoded(name))]
    if garbled:
        notes.append(
            f"{_counted(len(garbled), 'category name')} decoded wrongly by an earlier program:"
            f" {_joined_examples(garbled)}"
        )
    rewritten = [repr(name) for _, name in sorted(shown_as.items()) if is_rewritten(name)]
    if rewritten:
        notes.append(
            f"{_counted(len(rewritten), 'category name')} that a spreadsheet may have rewritten (dates, long"
            f" numbers): {_joined_examples(rewritten)}"
        )
    nothing = [repr(name) for _, name in sorted(shown_as.items()) if is_nothing(name)]
    if nothing:
        notes.append(
            f"{', '.join(nothing)} is read as a category; leave the cell empty for samples without one"
        )
    return notes


def _look_key(key: str) -> str:
    """Equal for similar-looking names: their words, or their number without redundant zeros and signs."""
    visible = in_latin(_visible(key))
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
    """Whether a name has an invisible character other than the joiners that scripts and emoji need."""
    return any(unicodedata.category(letter) == "Cf" and letter not in "\u200c\u200d" for letter in name)


def _quoted(name: str) -> str:
    """A name in quotes, with invisible characters escaped."""
    shown = repr(name)
    if any(_is_invisible(letter) for letter in name) or unicodedata.normalize("NFC", name) != name:
        return ascii(name)
    return shown


def _listed(names: Iterable[str], *, look_alike: bool = False) -> str:
    """Names in quotes; with `look_alike`, letters that look like Latin ones are escaped."""
    shown = [
        ascii(name) if look_alike and in_latin(folded := name.casefold()) != folded else _quoted(name)
        for name in names
    ]
    if len(shown) > _SHOWN + 1:
        shown = [*shown[:_SHOWN], f"{len(shown) - _SHOWN} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _joined_examples(shown: list[str]) -> str:
    rest = len(shown) - _SHOWN
    return "; ".join(shown[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _counted(number: int, what: str) -> str:
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"
