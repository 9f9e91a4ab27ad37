"""Matches the classes of a file from outside to the categories of a knowledge base, by name.

A class is a category if its name is the category's or one of its aliases, by the rule of `data.manifest.ids`
(capitals and spaces do not count; `tench, Tinca tinca` is a name and an alias). Any other class may fit if
underscores and hyphens are read as spaces, where that leaves no choice: only one category fits, only one
class fits it, and no class has its very name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.manifest.ids import name_key
from data.sample import Category


@dataclass(frozen=True)
class Matched:
    """`category_of`: class -> category_id. `loosely`: those of them that fit without underscores and hyphens.

    `ambiguous` are classes that fit several categories, `unknown` those that fit none; both stay out.
    """

    category_of: Mapping[str, str]
    loosely: tuple[str, ...]
    ambiguous: tuple[str, ...]
    unknown: tuple[str, ...]


def match_classes(classes: Iterable[str], categories: Sequence[Category]) -> Matched:
    """Find the category of each class; see the top of this file."""
    by_name = {name_key(category.name): {category.category_id} for category in categories}
    by_alias: dict[str, set[str]] = defaultdict(set)
    by_words: dict[str, set[str]] = defaultdict(set)
    for category in categories:
        for name in (category.name, *category.name.split(","), *category.aliases):
            by_alias[name_key(name)].add(category.category_id)
            by_words[_words(name)].add(category.category_id)
    classes = tuple(dict.fromkeys(classes))
    found: dict[str, str] = {}
    ambiguous: list[str] = []
    left: list[str] = []
    for name in classes:
        ids = by_name.get(name_key(name)) or by_alias.get(name_key(name)) or set()
        if len(ids) == 1:
            (found[name],) = ids
        else:
            (ambiguous if ids else left).append(name)
    taken = set(found.values())
    alike = Counter(map(_words, left))
    loosely, unknown = [], []
    for name in left:
        ids = by_words.get(_words(name), set()) - taken
        if len(ids) == 1 and len(by_words[_words(name)]) == 1 and alike[_words(name)] == 1:
            (found[name],) = ids
            loosely.append(name)
        else:
            unknown.append(name)
    order = {name: found[name] for name in classes if name in found}
    return Matched(order, tuple(loosely), tuple(ambiguous), tuple(unknown))


def _words(name: str) -> str:
    return name_key(name.replace("_", " ").replace("-", " "))
