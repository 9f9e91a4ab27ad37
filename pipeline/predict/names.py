"""`unibind predict --categories`: read the candidate names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from data.errors import InputError
from data.manifest.ids import name_key

_HOW = 'give "imagenet", a file with one name a line, or two or more names separated by commas'


def category_names(given: str, say: Callable[[str], None]) -> list[str]:
    """The names in `--categories`: "imagenet", the path of a category list, or names separated by commas.

    Empty and repeated names (equal after Unicode NFC, case folding and white space) are left out, and `say`
    is called with their number. Raises InputError where fewer than two are left: every file would get the
    only name.
    """
    if given == "imagenet":
        from data.wordnet import class_names

        return class_names()
    if os.path.isfile(given):  # noqa: PTH113  (Path.is_file raises for names that are too long for a file)
        from data.manifest.categories import read_categories

        notes: list[str] = []
        names = [category.name for category in read_categories(Path(given), notes=notes)]
        for note in notes:
            say(note)
        where = f"--categories {given}"
    else:
        names = [name.strip() for name in given.split(",")]
        where = f"--categories {given!r}"
    kept = _kept(names, where, say)
    if not kept:
        raise InputError(f"{where}: no name in it; {_HOW}")
    if len(kept) == 1:
        what = "a folder" if os.path.isdir(given) else "not a file, but one name"  # noqa: PTH112
        what = "one name" if os.path.isfile(given) else what  # noqa: PTH113
        raise InputError(f"{where}: {what}, which every file would get; {_HOW}")
    return kept


def _kept(names: list[str], where: str, say: Callable[[str], None]) -> list[str]:
    """The names without empty and repeated ones; `say` gets what was left out."""
    kept: dict[str, str] = {}
    again: Counter[str] = Counter()
    for name in names:
        key = name_key(name)
        if key and key in kept:
            again[kept[key]] += 1
        elif key:
            kept[key] = name
    empty = sum(not name for name in names)
    if kept and empty:
        say(f"{where}: {empty:,} empty {'name' if empty == 1 else 'names'} left out")
    if again:
        some = ", ".join(repr(name) for name in list(again)[:5])
        say(f"{where}: {again.total():,} repeated, each taken once: {some}{', …' if len(again) > 5 else ''}")
    return list(kept.values())
