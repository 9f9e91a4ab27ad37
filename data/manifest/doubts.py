"""What is allowed in a manifest, but is probably a mistake: notes say so, nothing is changed.

Of names: words for a missing value, names that a spreadsheet has rewritten, letters that look like others. Of
samples: a file or an object in split train and in another, one file or object of different categories.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from data.sample import Category, Sample

# How programs (pandas, R, Excel, databases) write a missing or impossible value; in lower case.
_NOTHING = frozenset(
    {"nan", "none", "null", "<na>", "n/a", "nat", "na", "nil", "\\n"}
    | {"#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!"}
)
# What Excel makes of `123456789012`, `MARCH1` and `1/2`.
_REWRITTEN = re.compile(
    r"\d(?:[.,]\d+)?E[+-]\d{2,3}"
    r"|\d{1,2}-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-\d{2}"
    r"|\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?"
)
# Cyrillic and Greek letters in lower case, and the Latin ones that they, or their capitals, look like.
_CYRILLIC = dict(zip("аеорсухіјѕһԁԛԝӏвкмнт", "aeopcyxijshdqwlbkmht", strict=True))
_GREEK = dict(zip("αβεζηικμνορτυχ", "abezhikmnoptyx", strict=True))
_LOOKS = str.maketrans(_CYRILLIC | _GREEK)
_LOST = re.compile(r"[\x80-\x84\x86-\x9f\ufffd]")  # control characters of Latin-1, and U+FFFD
_NUMBERED = re.compile(r"\(?\d+[\s.,:;)|]+.*\D.*")
_NUMBERED_BEHIND = re.compile(r".*\D.*[\s,:;|]+\d+")
NameOf = Callable[[Sample], str | None]
_LATIN = re.compile(r"[a-z]", re.IGNORECASE)


def is_nothing(name: str) -> bool:
    """Whether a text is how programs write a missing value (`nan`, `NA`, `#N/A`), or shows nothing."""
    shown = "".join(letter for letter in name if unicodedata.category(letter) != "Cf").strip()
    return not shown or shown.casefold() in _NOTHING


def is_rewritten(name: str) -> bool:
    """Whether a text is a date or a number as spreadsheets rewrite names and long numbers."""
    return _REWRITTEN.fullmatch(name.strip()) is not None


def wrongly_decoded(name: str) -> str | None:
    """What shows that a program has decoded a name wrongly: what it was before UTF-8 was read as Windows-1252
    (`cafÃ©` was `café`), or a sign that stands for a lost letter; None for other names."""
    if lost := _LOST.search(name):
        return f"holds {ascii(lost[0])[1:-1]}"
    try:
        before = name.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return None
    return f"was {before!r}" if before != name else None


def mixes_scripts(name: str) -> bool:
    """Whether a word of a name has both Latin letters and Cyrillic ones that look like Latin ones."""
    words = re.findall(r"\w+", name.casefold())
    return any(_LATIN.search(word) and not _CYRILLIC.keys().isdisjoint(word) for word in words)


def in_latin(key: str) -> str:
    """A folded name with Latin letters in place of Greek and Cyrillic ones that look like them."""
    return key.translate(_LOOKS)


def doubtful_lines(lines: Sequence[str]) -> list[str]:
    """Notes on a list of one name a line: comments and numbers are read as names, or as parts of them."""
    notes = []
    comments = [line for line in lines if line.startswith(("#", "//"))]
    if comments:
        notes.append(
            f"{_counted(comments, 'line')} read as a name, such as {comments[0]!r}: a list of names has no"
            " comments"
        )
    for pattern, where in ((_NUMBERED, "begins"), (_NUMBERED_BEHIND, "ends")):
        if len(lines) > 1 and all(map(pattern.fullmatch, lines)):
            notes.append(
                f"every line {where} with a number, which is read as part of the name ({lines[0]!r})"
            )
    return notes


def doubtful_aliases(categories: Sequence[Category], key: Callable[[str], str]) -> list[str]:
    """A note on aliases that are a name of another category as well; `key` says which names are the same.

    A text that names the one then passes for a text that names the other.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    for category in categories:
        for name in (category.name, *category.aliases):
            owners[key(name)].add(category.category_id)
    shared = [
        (alias, category.name)
        for category in categories
        for alias in category.aliases
        if len(owners[key(alias)]) > 1
    ]
    if not shared:
        return []
    alias, name = shared[0]
    return [
        f"{_counted(shared, 'alias', 'aliases')} that another category has as well, such as {alias!r} of"
        f" {name!r}: a text that names it counts for both"
    ]


def doubtful_samples(samples: Sequence[Sample]) -> list[str]:
    """Notes on files and objects that occur in ways which make a result wrong."""
    notes = []
    for what, name_of, remedy in (
        ("file", _file, "one of the labels is wrong"),
        ("object", _object, "different things need different object_ids"),
    ):
        if leaked := _in_train_and_elsewhere(samples, name_of):
            notes.append(
                f"{_counted(leaked, what)} in split train and in another, such as {leaked[0]!r}: scores on"
                " these are not held-out"
            )
        if torn := _of_different_categories(samples, name_of):
            notes.append(
                f"{_counted(torn, what)} with rows of different categories, such as {torn[0]!r}: {remedy}"
            )
    nothing = Counter(
        sample.object_id for sample in samples if sample.object_id and is_nothing(sample.object_id)
    )
    for name, count in sorted(nothing.items()):
        notes.append(
            f"{name!r} is read as the object_id of {count} samples; leave the cell empty for samples without"
            " one"
        )
    empty = [
        sample.description for sample in samples if sample.description and is_nothing(sample.description)
    ]
    if empty:
        notes.append(
            f"{empty[0]!r} is read as the description of {len(empty)} samples; leave the cell empty for"
            " samples without one"
        )
    return notes


def _counted(things: Sequence[object], what: str, many: str | None = None) -> str:
    return f"{len(things)} {what if len(things) == 1 else many or what + 's'}"


def _file(sample: Sample) -> str | None:
    uri = sample.uri
    return posixpath.normpath(uri) if "./" in uri or "//" in uri else uri


def _object(sample: Sample) -> str | None:
    return sample.object_id


def _in_train_and_elsewhere(samples: Sequence[Sample], name_of: NameOf) -> list[str]:
    trained = {name_of(sample) for sample in samples if sample.split == "train"}
    others = (name_of(sample) for sample in samples if sample.split != "train")
    return [name for name in dict.fromkeys(others) if name is not None and name in trained]


def _of_different_categories(samples: Sequence[Sample], name_of: NameOf) -> list[str]:
    """Names that have two samples without a category in common. Samples without any do not count."""
    first: dict[str, Sample] = {}
    torn: dict[str, None] = {}
    for sample in samples:
        name = name_of(sample)
        if name is not None and sample.category_id is not None:
            before = first.setdefault(name, sample)
            if before is not sample and not _categories(before) & _categories(sample):
                torn[name] = None
    return list(torn)


def _categories(sample: Sample) -> set[str | None]:
    return {sample.category_id, *sample.more_category_ids}
