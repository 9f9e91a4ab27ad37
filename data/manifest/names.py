"""Resolves the categories of each row of a manifest: by name, by id, one or several."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from data.manifest.ids import (
    best_spelling,
    category_ids,
    id_with_hash,
    is_blank,
    name_key,
    normal_spelling,
    notes_on_names,
)
from data.paths import slug
from data.sample import Category
from data.tables.read import Mistakes, TextRow, TextTable

BETWEEN = "|"  # separates several categories in one text

Cell = str | tuple[str, ...] | None
Pair = tuple[str | None, str | None]  # a name and an id, at least one of them


@dataclass(frozen=True)
class _Meaning:
    """The category ids of a row's two cells, and mistakes (as arguments of `Mistakes.add`)."""

    ids: list[str] = field(default_factory=list)
    mistakes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class CategoryNames:
    """Resolves names and ids to categories: those of the category list, or, without one, those in the rows.

    All rows are read first, so that the meaning of a name does not depend on their order.
    """

    def __init__(self, listed: Sequence[Category] | None, table: TextTable) -> None:
        self._listed = listed is not None
        self._by_id: dict[str, Category] = {}
        self._id_of_key: dict[str, str] = {}
        self._spellings: dict[str, set[str]] = defaultdict(set)  # of each key, as the files have them
        self._wrong: dict[str, str] = {}  # what is wrong with the names of a key
        self._meanings: dict[tuple[Cell, Cell], _Meaning] = {}
        self.named_by_id = (
            not self._listed and "category_id" in table.columns and "category" not in table.columns
        )
        for category in listed or ():
            self._add(category)
            self._spellings[name_key(category.name)].add(category.name)
        # A text with a bar is a single name if the list contains it as such.
        self._whole = frozenset((*self._id_of_key, *map(name_key, self._by_id)))
        # A dict, not a set, so that mistakes are reported in the order of the rows.
        pairs = {
            pair: None for cells in dict.fromkeys(map(_cells, table.rows)) for pair in self._pairs(*cells)
        }
        for name, _ in pairs:
            if name is not None:
                self._spellings[name_key(name)].add(name)
        if not self._listed:
            self._name_all(pairs)

    def _pairs(self, names: Cell, ids: Cell) -> list[Pair]:
        """Pairs the names with the ids of a row; where one list is longer, its rest is paired with None."""
        if isinstance(names, str) and isinstance(ids, str) and _is_whole(names, ids):
            return [(names, ids)]
        return list(zip_longest(self._several(names), self._several(ids)))

    def _several(self, cell: Cell) -> Sequence[str]:
        """The items of a cell: a list, or a text separated by `|`."""
        if cell is None or isinstance(cell, tuple):
            return cell or ()
        if BETWEEN not in cell or name_key(cell) in self._whole:
            return [cell]
        return [part.strip() for part in cell.split(BETWEEN) if part.strip()] or [cell]

    def _name_all(self, pairs: Iterable[Pair]) -> None:
        """Create the categories named in the rows: first those with given ids, then ids derived from
        names."""
        named: dict[str, str] = {}  # id -> the key of the name beside it
        by_itself: dict[str, str] = {}  # id -> its key, where the name repeats the id
        bare: dict[str, None] = {}  # ids without a name
        unidentified: dict[str, None] = {}  # keys of names without an id
        for name, category_id in pairs:
            key = name_key(name or "")
            if name is not None and is_blank(name):
                self._wrong[key] = "has no visible character"
            elif category_id is None:
                unidentified[key] = None
            elif name is None:
                bare[category_id] = None
            else:
                (by_itself if name == category_id else named).setdefault(category_id, key)
        for category_id, key in (by_itself | named).items():
            self._add(Category(category_id, best_spelling(self._spellings[key])))
        made = category_ids(key for key in unidentified if key not in self._id_of_key)
        for key, category_id in made.items():
            if category_id in self._by_id:
                self._wrong[key] = (
                    f"would get the id {category_id!r} of {self._by_id[category_id].name!r}; "
                    "give each of them a category_id"
                )
            else:
                self._add(Category(category_id, best_spelling(self._spellings[key])))
        read = {each: _name_of_id(each) for each in bare if each not in self._by_id}
        uses = Counter(map(name_key, read.values()))
        for category_id, name in read.items():
            alone = uses[name_key(name)] == 1 and name_key(name) not in self._id_of_key
            self._add(Category(category_id, name if alone else category_id))

    def _add(self, category: Category) -> None:
        self._by_id[category.category_id] = category
        key = name_key(category.name)
        first = self._id_of_key.setdefault(key, category.category_id)
        if first != category.category_id:
            self._wrong[key] = (
                f"has the ids {first!r} and {category.category_id!r}; give a category one id, "
                "or two categories different names"
            )

    def ids_of(self, row: TextRow, mistakes: Mistakes) -> list[str]:
        """The row's distinct category ids; none where it names no category, or a wrong one (added to
        `mistakes`)."""
        cells = _cells(row)
        meaning = self._meanings.get(cells)
        if meaning is None:
            meaning = self._meanings[cells] = self._meaning(*cells)
        for what, hints in meaning.mistakes:
            mistakes.add(row.where, what, **hints)
        return meaning.ids

    def _meaning(self, names: Cell, ids: Cell) -> _Meaning:
        pairs = self._pairs(names, ids)
        if names and ids and any(None in pair for pair in pairs):
            many_names, many_ids = len(self._several(names)), len(self._several(ids))
            return _Meaning(mistakes=[(f"{many_names} in column category but {many_ids} in category_id", {})])
        meaning = _Meaning()
        for pair in pairs:
            found = self._find(*pair)
            if isinstance(found, tuple):
                meaning.mistakes.append(found)
            elif found not in meaning.ids:
                meaning.ids.append(found)
        return meaning

    def _find(self, name: str | None, category_id: str | None) -> str | tuple[str, dict[str, Any]]:
        """The id of a category, or a mistake (as arguments of `Mistakes.add`)."""
        if category_id is None:
            return self._find_by_name(name or "")
        known = self._by_id.get(category_id)
        if known is None:
            hints = {"given": category_id, "known": self._by_id}
            return f"category_id {category_id!r} is not in the category list", hints
        key = name_key(known.name)
        if key in self._wrong:
            return f"category {known.name!r} {self._wrong[key]}", {}
        if name is not None and name_key(name) != key and name != category_id:
            what = f"category {name!r} has the id {category_id!r} of {known.name!r}; use one spelling"
            return what, {}
        return category_id

    def _find_by_name(self, name: str) -> str | tuple[str, dict[str, Any]]:
        key = name_key(name)
        if key in self._wrong:
            return f"category {name!r} {self._wrong[key]}", {}
        if not self._listed:
            return self._id_of_key[key]  # `_name_all` registered every name of the rows
        found = self._id_of_key.get(key)
        known = self._by_id.get(name)
        if known is not None and found not in (None, name) and self._by_id[found or ""].name != name:
            both = f"the name of {found!r} and the id of {known.name!r}"
            return f"category {name!r} is {both}; add a column category_id to say which one is meant", {}
        if found or known:
            return found or name
        known_names = {self._by_id[each].name: each for each in self._id_of_key.values()}
        return f"category {name!r} is not in the category list", {"given": name, "known": known_names}

    def categories(self) -> tuple[Category, ...]:
        """The categories of the list in its order, or those of the rows, sorted by id."""
        found = tuple(self._by_id.values())
        return found if self._listed else tuple(sorted(found, key=lambda category: category.category_id))

    def notes(self) -> list[str]:
        """Notes on names: merged spellings, names that look alike."""
        shown_as = {key: self._by_id[each].name for key, each in self._id_of_key.items()}
        return notes_on_names(self._spellings, shown_as)


def _cells(row: TextRow) -> tuple[Cell, Cell]:
    names, ids = row.cells.get("category"), row.cells.get("category_id")
    return tuple(names) if isinstance(names, list) else names, tuple(ids) if isinstance(ids, list) else ids


def _is_whole(names: str, ids: str) -> bool:
    """Whether a text with a bar is a single name: its id is derived from the whole text."""
    return BETWEEN in names and ids in (slug(names), id_with_hash(name_key(names)))


def _name_of_id(category_id: str) -> str:
    return normal_spelling(category_id.replace("-", " ").replace("_", " ")) or category_id
