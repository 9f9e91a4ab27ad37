"""Which categories a manifest's row means, by name or by id, one or several."""

from __future__ import annotations

from collections.abc import Container
from itertools import zip_longest

from data.paths import slug
from data.sample import Category
from data.tables import Mistakes, Row, Table

BETWEEN = "|"  # several categories in one text


def _several(cell: str | list[str] | None, exact: Container[str]) -> list[str]:
    """The categories that a cell names: a list's, or those of a text with `|` between them."""
    if cell is None or isinstance(cell, list):
        return cell or []
    if cell in exact or BETWEEN not in cell:
        return [cell]
    return [part.strip() for part in cell.split(BETWEEN) if part.strip()]


class CategoryNames:
    """Which category a row means: one of the list's, or, without a list, one that the rows name."""

    def __init__(self, listed: tuple[Category, ...] | None, table: Table) -> None:
        self._listed = listed is not None
        self._by_id = {category.category_id: category for category in listed or ()}
        self._id_by_name = {category.name: category.category_id for category in listed or ()}
        self._exact = frozenset((*self._by_id, *self._id_by_name))  # what the list spells
        self._has_names = "category" in table.columns
        self._has_ids = "category_id" in table.columns
        self.named_by_id = not self._listed and self._has_ids and not self._has_names

    def ids_of(self, row: Row, mistakes: Mistakes) -> list[str]:
        """The row's category ids, each once; none where it names none, or wrongly (a mistake is noted)."""
        names = _several(row.cells.get("category"), self._exact)
        ids = _several(row.cells.get("category_id"), self._exact)
        if names and ids and len(names) != len(ids):
            mistakes.add(row.where, f"{len(names)} in column category but {len(ids)} in category_id")
            return []
        pairs = zip_longest(names, ids)
        found = [self._id_of(name, category_id, row, mistakes) for name, category_id in pairs]
        return list(dict.fromkeys(each for each in found if each is not None))

    def _id_of(self, name: str | None, category_id: str | None, row: Row, mistakes: Mistakes) -> str | None:
        if category_id is None and name is not None:
            category_id = self._id_by_name.get(name) or self._id_of_name(name, row, mistakes)
        if category_id is None:
            return None
        known = self._by_id.get(category_id)
        if known is None:
            if self._listed:
                mistakes.add(
                    row.where,
                    f"category_id {category_id!r} is not in the category list",
                    given=category_id,
                    known=self._by_id,
                )
                return None
            known = Category(category_id, name or category_id.replace("-", " ").replace("_", " "))
            self._by_id[category_id] = known
            self._id_by_name.setdefault(known.name, category_id)
        if name is not None and name != known.name and name != category_id:
            mistakes.add(
                row.where,
                f"category {name!r} has the id {category_id!r} of {known.name!r}; spell it in one way",
            )
            return None
        return category_id

    def _id_of_name(self, name: str, row: Row, mistakes: Mistakes) -> str | None:
        if self._listed:
            if name in self._by_id:
                return name
            mistakes.add(
                row.where,
                f"category {name!r} is not in the category list",
                given=name,
                known=self._id_by_name,
            )
            return None
        category_id = slug(name)
        if not category_id:
            mistakes.add(row.where, f"category {name!r} has no letter or digit to make an id from")
        return category_id or None

    def categories(self) -> tuple[Category, ...]:
        """The list's categories in its order, or the found ones by id."""
        found = tuple(self._by_id.values())
        return found if self._listed else tuple(sorted(found, key=lambda category: category.category_id))
