"""Localize with edits that are not saved: some texts left out, others added with their vectors.

Shapes: N rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data.errors import KnowledgeBaseError
from trainer.inputs import CLASS_NAME, CategoryTexts, KnowledgeBase, load_class_names, open_category_texts
from trainer.localize.choose import choose_centers
from trainer.records import Centers, Floats
from trainer.score.geometry import unit_rows
from trainer.settings import Localize


@dataclass(frozen=True)
class Edits:
    """What a person would change: row ids to strike out or to take back, and texts by category.

    `added`: category id -> (row ids, unit vectors float32[N, D] of the text encoder).
    """

    struck: frozenset[str] = frozenset()
    restored: frozenset[str] = frozenset()
    added: Mapping[str, tuple[list[str], Floats]] = field(default_factory=dict)


@dataclass(frozen=True)
class EditedTexts(CategoryTexts):
    """The descriptions of all categories after some edits; reads like `CategoryTexts`."""

    edits: Edits = field(default_factory=Edits)

    def read(self, category: int) -> tuple[list[str], Floats]:
        """The category's descriptions: row ids, ascending, and their vectors, float32[N, D]."""
        ids, vectors_ND = super().read(category)
        kept = [place for place, row_id in enumerate(ids) if row_id not in self.edits.struck]
        more_ids, more_ND = self.edits.added.get(self.categories[category], ([], vectors_ND[:0]))
        every = [*(ids[place] for place in kept), *more_ids]
        order = sorted(range(len(every)), key=every.__getitem__)
        joined_ND = np.concatenate([vectors_ND[kept], more_ND.astype(np.float32)])
        return [every[place] for place in order], joined_ND[order]


def choose_edited(base: KnowledgeBase, settings: Localize, edits: Edits) -> tuple[pa.Table, Centers]:
    """The centers that `localize` would choose after these edits: as a table, and with their vectors.

    Nothing is written. Raises what `choose_centers` raises.
    """
    texts = open_category_texts(base, settings.texts, seed=settings.seed, restored=edits.restored)
    edited = EditedTexts(texts.categories, texts.table, texts.row_ids, texts.starts_C1, edits)
    table, _ = choose_centers(base, settings, edited)
    return table, _with_vectors(base, table, edited)


def _with_vectors(base: KnowledgeBase, table: pa.Table, texts: EditedTexts) -> Centers:
    """The chosen centers with their vectors, rows sorted by (category, rank)."""
    rows = table.sort_by([("category_id", "ascending"), ("rank", "ascending")]).to_pylist()
    names = load_class_names(base) if any(row["rule"] == CLASS_NAME for row in rows) else None
    vectors: list[Floats] = []
    known: dict[str, Floats] = {}
    current = -1
    for row in rows:
        category = base.index[row["category_id"]]
        if category != current:
            ids, vectors_ND = texts.read(category)
            known, current = dict(zip(ids, vectors_ND, strict=True)), category
        if names is not None and row["rule"] == CLASS_NAME:
            vectors.append(names.vectors_CD[category])
        elif row["row_id"] in known:
            vectors.append(known[row["row_id"]])
        else:
            raise KnowledgeBaseError(f"{base.folder}: the vectors changed meanwhile; try again")
    stacked_ND = np.stack(vectors) if vectors else np.zeros((0, texts.table.dim), np.float32)
    return Centers(
        categories=base.categories,
        row_ids=tuple(row["row_id"] for row in rows),
        category_N=np.array([base.index[row["category_id"]] for row in rows], dtype=np.int64),
        vectors_ND=unit_rows(stacked_ND),
        guided_by=frozenset(row["guided_by"] for row in rows) - {None},
        with_name=names is not None,
    )
