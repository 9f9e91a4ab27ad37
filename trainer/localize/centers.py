"""Read embedding centers from centers.parquet, with their vectors."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError
from kb_builder.store.cards import read_card
from kb_builder.store.table import open_table
from kb_builder.tables.schemas import read_columns
from trainer.inputs import CLASS_NAME, KnowledgeBase, load_class_names
from trainer.records import Centers, Doubles, Floats, Ints
from trainer.score.blas import one_thread_each, parallel_map
from trainer.score.geometry import unit_rows

_ROWS_AT_ONCE = 4096  # texts that a thread reads together


def load_centers(kb: KnowledgeBase) -> Centers:
    """The localized centers, rows sorted by (category, rank).

    The store is read a few categories per core at a time. Raises KnowledgeBaseError where the centers are
    missing or were chosen from other texts or by another encoder.
    """
    names = ["category_id", "rank", "row_id", "rule", "guided_by", "encoder"]
    return read_centers(kb, read_columns(kb.folder / "centers.parquet", names, hint="unibind localize"))


def read_centers(kb: KnowledgeBase, table: pa.Table) -> Centers:
    """The centers in a table of `choose_centers`, as `load_centers` returns them."""
    stale = KnowledgeBaseError(
        f"{kb.folder / 'centers.parquet'}: chosen from other texts or with another encoder;"
        " run `unibind localize` again"
    )
    if not kb.categories:
        dim = read_card(kb.encoder("text")).get("dim", 0)
        return Centers((), (), np.zeros(0, np.int64), np.zeros((0, dim), np.float32))
    rows = table.sort_by([("category_id", "ascending"), ("rank", "ascending")]).combine_chunks()
    stored_texts = open_table(kb.encoder("text") / "category_texts")
    names, counts = np.unique(rows["category_id"].to_numpy(), return_counts=True)
    if not all(name in kb.index for name in names) or set(rows["encoder"].unique().to_pylist()) - {
        kb.encoder("text").name
    }:
        raise stale
    row_ids = rows["row_id"].to_pylist()
    own = load_class_names(kb) if CLASS_NAME in rows["rule"].unique().to_pylist() else None

    stops = np.cumsum(counts)
    jobs = list(zip(names.tolist(), (stops - counts).tolist(), stops.tolist(), strict=True))

    def read(some: list[tuple[str, int, int]]) -> Floats:
        known = [name for name, _, _ in some if name in stored_texts.groups]
        stored = dict(zip(known, stored_texts.read_many(known), strict=True))
        blocks = []
        for name, start, stop in some:
            ids, vectors_ND = [], np.zeros((0, stored_texts.dim), np.float32)
            if name in stored:
                ids, vectors_ND = stored[name].ids, stored[name].vectors_ND
            if own is not None:
                category = kb.index[name]
                ids = [*ids, own.row_ids[category]]
                vectors_ND = np.concatenate([vectors_ND, own.vectors_CD[category : category + 1]])
            place_K = pc.index_in(pa.array(row_ids[start:stop]), value_set=pa.array(ids, pa.string()))
            if place_K.null_count:
                raise stale
            blocks.append(unit_rows(vectors_ND[place_K.to_numpy()]))
        return np.concatenate(blocks)

    # Categories are read a few at a time: as many as have some thousand texts together.
    before = np.cumsum([0, *(stored_texts.groups.get(name, 0) for name, _, _ in jobs[:-1])])
    cuts = np.flatnonzero(np.diff(before // _ROWS_AT_ONCE, prepend=0)).tolist()
    parts = [jobs[start:stop] for start, stop in pairwise([0, *cuts, len(jobs)]) if start < stop]
    with one_thread_each():
        blocks = parallel_map(read, parts)
    return Centers(
        categories=kb.categories,
        row_ids=tuple(row_ids),
        category_N=np.repeat(np.array([kb.index[name] for name in names], dtype=np.int64), counts),
        vectors_ND=np.concatenate([np.zeros((0, stored_texts.dim), np.float32), *blocks]),
        guided_by=frozenset(rows["guided_by"].unique().to_pylist()) - {None},
        with_name=own is not None,
    )


def category_means(vectors_ND: Floats, category_N: Ints, n_categories: int) -> Doubles:
    """The unit mean of each category's rows: float64[C, D]; zeros for a category without rows."""
    sums_CD = np.zeros((n_categories, vectors_ND.shape[1]))
    np.add.at(sums_CD, category_N, vectors_ND.astype(np.float64))
    lengths_C1 = np.linalg.norm(sums_CD, axis=1, keepdims=True)
    means_CD: Doubles = sums_CD / np.where(lengths_C1 > 0, lengths_C1, 1.0)
    return means_CD
