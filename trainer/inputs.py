"""Load a knowledge base for training and evaluation: tables joined with their vectors, as matrices.

Rows without a counterpart (a sample without a vector, a description that was never encoded) are counted and
reported, never silently dropped; vectors whose row is gone or no longer `ok` are stale and not used.

Shapes: N rows, C categories, D dimensions, L further categories of a sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import KnowledgeBaseError
from data.reads import columns, reading
from data.reads import names as names_in
from kb_builder.added.struck import read_struck
from kb_builder.store.cards import read_roles
from kb_builder.store.table import VectorTable, open_table, read_manifest, read_vectors
from kb_builder.tables.schemas import CONTROLS, SAMPLES, read_columns
from trainer.records import Bools, Centers, Floats, Ints, SampleSet

CLASS_NAME = "class_name"  # the control; in the column `rule` of centers: the center is the bare name


@dataclass(frozen=True)
class KnowledgeBase:
    """The tables of a knowledge base that every step needs, and the folders of its vectors."""

    folder: Path
    categories: tuple[str, ...]  # ids, sorted
    names: tuple[str, ...]  # display names, in the same order
    samples: tuple[dict[str, Any], ...]  # rows of samples.parquet, sorted by sample_id
    encoders: dict[str, Path | None]  # "text", "samples", "zero_shot" -> folder
    index: dict[str, int] = field(repr=False)  # category id -> its place in `categories`

    @cached_property
    def objects(self) -> tuple[str, ...]:
        """The object ids, sorted; objects are numbered by their index here."""
        return tuple(sorted({row["object_id"] for row in self.samples} - {None}))

    def encoder(self, role: str) -> Path:
        """The folder of the encoder in a role. Raises KnowledgeBaseError where there is none."""
        folder = self.encoders.get(role)
        if folder is None:
            raise KnowledgeBaseError(
                f"{self.folder}: no {role} encoder; name one under [encode] and run `unibind encode`"
            )
        return folder


def open_kb(folder: Path) -> KnowledgeBase:
    """Read the small tables and the list of encoders. Raises KnowledgeBaseError for what is missing."""
    rows = _columns(folder / "categories.parquet", ["category_id", "name"], hint="unibind describe")
    names = dict(sorted(zip(rows["category_id"], rows["name"], strict=True)))
    columns = ["sample_id", "object_id", "modality", "category_id", "split"]
    more = SAMPLES.field("more_category_ids")
    path = folder / "samples.parquet"
    table = read_columns(path, columns, hint="unibind describe", optional=[more]).to_pylist()
    named = {row["category_id"] for row in table}
    named.update(category for row in table for category in row[more.name] or ())
    unknown = sorted(named - set(names) - {None})
    if unknown:
        raise KnowledgeBaseError(
            f"{path}: the category {unknown[0]!r} is not in categories.parquet;"
            " delete both and run `unibind describe`"
        )
    roles = read_roles(folder)
    if not roles:
        raise KnowledgeBaseError(f"{folder}: nothing is encoded yet; run `unibind encode`")
    return KnowledgeBase(
        folder=folder,
        categories=tuple(names),
        names=tuple(names.values()),
        samples=tuple(sorted(table, key=lambda row: str(row["sample_id"]))),
        encoders=roles,
        index={category: number for number, category in enumerate(names)},
    )


@dataclass(frozen=True)
class CategoryTexts:
    """The `ok` descriptions of categories, and the table of their vectors; threads may share it."""

    categories: tuple[str, ...]
    table: VectorTable
    row_ids: pa.StringArray  # of the `ok` rows, sorted by category
    starts_C1: Ints  # category c has the ids starts_C1[c] … starts_C1[c + 1] - 1

    def read(self, category: int) -> tuple[list[str], Floats]:
        """The category's encoded `ok` descriptions: row ids, ascending, and their vectors, float32[N, D]."""
        name = self.categories[category]
        if name not in self.table.groups:
            return [], np.zeros((0, self.table.dim), np.float32)
        stored = self.table.read(name)
        start, stop = self.starts_C1[category : category + 2].tolist()
        is_ok = pc.is_in(pa.array(stored.ids, pa.string()), value_set=self.row_ids[start:stop])
        rows = np.flatnonzero(is_ok.to_numpy(zero_copy_only=False))
        ids = [stored.ids[row] for row in rows]
        return ids, stored.vectors_ND if len(rows) == len(stored.ids) else stored.vectors_ND[rows]


def open_category_texts(
    kb: KnowledgeBase, most: int | None = None, *, seed: int = 0, restored: frozenset[str] = frozenset()
) -> CategoryTexts:
    """The descriptions of all categories; with `most`, at most that many of each, drawn uniformly.

    Texts that a person has struck out (kb_builder/added/struck.py) are left out, except those in `restored`.
    Raises KnowledgeBaseError where there are no descriptions, or no vectors.
    """
    folder = kb.folder / "descriptions" / "category"
    table = _table(folder, ["row_id", "category_id", "status"], hint="unibind describe")
    category_N = _places(table["category_id"], kb.categories)
    category_N[~pc.equal(table["status"], "ok").to_numpy()] = -1
    if struck := read_struck(kb.folder).keys() - restored:
        category_N[pc.is_in(table["row_id"], value_set=pa.array(sorted(struck), pa.string())).to_numpy()] = -1
    order = np.argsort(category_N, kind="stable")
    order = order[np.count_nonzero(category_N < 0) :]
    if most is not None:
        order = _sample_rows(order, category_N[order], most, seed)
    return CategoryTexts(
        categories=kb.categories,
        table=open_table(kb.encoder("text") / "category_texts"),
        row_ids=_one_chunk(table["row_id"].take(pa.array(order))),
        starts_C1=np.searchsorted(category_N[order], np.arange(len(kb.categories) + 1)),
    )


def center_texts(folder: Path, row_ids: Iterable[str]) -> dict[str, str]:
    """The texts of some embedding centers, by row id: descriptions, or bare names."""
    wanted = pa.array(sorted(row_ids), pa.string())
    found: dict[str, str] = {}
    controls = folder / "controls.parquet"
    parts = names_in(folder / "descriptions" / "category", "*.parquet")
    for part in (*parts, *([controls] if reading(controls).exists() else ())):
        table = columns(part, ["row_id", "text"])
        table = table.filter(pc.is_in(table["row_id"], value_set=wanted))
        found |= dict(zip(table["row_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    return found


def load_controls(kb: KnowledgeBase) -> dict[str, Centers]:
    """The encoded control texts, control by control, rows sorted by (category, rank).

    The row ids of the control `name_free` are those of the descriptions that its texts stand for.
    """
    path = kb.folder / "controls.parquet"
    names = ["row_id", "control", "category_id", "rank"]
    table = read_columns(path, names, hint="unibind encode", optional=[CONTROLS.field("stands_for")])
    category = pa.array(_places(table["category_id"], kb.categories))
    table = table.append_column("category", category).filter(pc.greater_equal(category, 0))
    if len(table) == 0:
        return {}
    table = table.sort_by([(name, "ascending") for name in ("control", "category", "rank", "row_id")])
    vectors = read_vectors(kb.encoder("text") / "controls")
    place_N = _places(table["row_id"], vectors.ids)
    control_N = table["control"].to_numpy()
    category_N = table["category"].to_numpy()
    row_ids = pc.coalesce(table["stands_for"], table["row_id"]).to_pylist()
    controls: dict[str, Centers] = {}
    for control in sorted(set(control_N)):
        rows = np.flatnonzero((control_N == control) & (place_N >= 0))
        controls[control] = Centers(
            categories=kb.categories,
            row_ids=tuple(row_ids[row] for row in rows),
            category_N=category_N[rows],
            vectors_ND=vectors.vectors_ND[place_N[rows]],
        )
    return controls


@dataclass(frozen=True)
class ClassNames:
    """One row per category, in the order of `KnowledgeBase.categories`."""

    row_ids: tuple[str, ...]  # of the control's texts
    vectors_CD: Floats  # as stored: of unit length up to the store's rounding


def load_class_names(kb: KnowledgeBase) -> ClassNames:
    """The encoded names. Raises KnowledgeBaseError where a category's name has no vector."""
    named = load_controls(kb).get(CLASS_NAME)
    if named is None or (named.counts() != 1).any():
        raise KnowledgeBaseError(
            f"{kb.folder / 'controls.parquet'}: the name of some category has no vector; run `unibind encode`"
        )
    return ClassNames(row_ids=named.row_ids, vectors_CD=named.vectors_ND)


def load_samples(kb: KnowledgeBase, role: str) -> tuple[dict[str, SampleSet], dict[str, int]]:
    """The samples of every modality, encoded by the encoder in a role ("samples" or "zero_shot").

    Samples of the modality `text` come from the text encoder in both roles. Returns the sets by modality, and
    the number of samples without a vector by modality (only where there are any).
    """
    folders = {"text": kb.encoder("text") / "samples", "": kb.encoder(role) / "samples"}
    tables = {key: open_table(folder) for key, folder in folders.items() if read_manifest(folder) is not None}
    objects = {name: i for i, name in enumerate(kb.objects)}
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in kb.samples:
        rows_of.setdefault(row["modality"], []).append(row)
    sets: dict[str, SampleSet] = {}
    missing: dict[str, int] = {}
    for modality, rows in sorted(rows_of.items()):
        table = tables.get("text" if modality == "text" else "")
        if table is None or modality not in table.groups:
            missing[modality] = len(rows)
            continue
        vectors = table.read(modality)
        place_N = _places(pa.array([row["sample_id"] for row in rows], pa.string()), vectors.ids)
        found = [row for row, place in zip(rows, place_N.tolist(), strict=True) if place >= 0]
        if len(found) < len(rows):
            missing[modality] = len(rows) - len(found)
        if found:
            sets[modality] = SampleSet(
                modality=modality,
                sample_ids=tuple(row["sample_id"] for row in found),
                splits_N=np.array([row["split"] for row in found]),
                category_N=np.array([kb.index.get(row["category_id"], -1) for row in found], dtype=np.int64),
                object_N=np.array([objects.get(row["object_id"], -1) for row in found], dtype=np.int64),
                vectors_ND=vectors.vectors_ND[place_N[place_N >= 0]],
                more_NL=_more_categories(found, kb.index),
            )
    return sets, missing


@dataclass(frozen=True)
class SampleTexts:
    """The encoded descriptions of samples, and which rows of the matrix belong to which sample."""

    rows: dict[str, tuple[int, ...]]  # sample id -> rows
    vectors_ND: Floats


def load_sample_texts(kb: KnowledgeBase) -> tuple[SampleTexts, dict[str, int]]:
    """The encoded `ok` descriptions of the samples, and counts of what is missing; there may be none."""
    folder = kb.folder / "descriptions" / "sample"
    if not names_in(folder, "*.parquet"):
        return SampleTexts({}, np.zeros((0, 0), np.float32)), {"sample_texts_without_vector": 0}
    table = _table(folder, ["row_id", "sample_id", "status"], hint="unibind describe")
    table = table.filter(pc.equal(table["status"], "ok"))
    if len(table) == 0:
        return SampleTexts({}, np.zeros((0, 0), np.float32)), {"sample_texts_without_vector": 0}
    vectors = read_vectors(kb.encoder("text") / "sample_texts")
    place_N = _places(table["row_id"], vectors.ids)
    table = table.append_column("place", pa.array(place_N)).filter(pa.array(place_N >= 0))
    table = table.sort_by([("sample_id", "ascending"), ("row_id", "ascending")])
    found: dict[str, list[int]] = {}
    for sample, place in zip(table["sample_id"].to_pylist(), table["place"].to_pylist(), strict=True):
        found.setdefault(sample, []).append(place)
    texts = SampleTexts({sample: tuple(rows) for sample, rows in found.items()}, vectors.vectors_ND)
    return texts, {"sample_texts_without_vector": len(place_N) - len(table)}


def seen_categories(kb: KnowledgeBase) -> Bools:
    """Whether each category has a train sample of any modality: bool[C]."""
    trained = {row["category_id"] for row in kb.samples if row["split"] == "train"}
    return np.array([category in trained for category in kb.categories], dtype=np.bool_)


def count_rejects(folder: Path) -> list[dict[str, Any]]:
    """Rows {stage, n}: how many samples each stage rejected; sorted by stage."""
    if not names_in(folder / "rejects", "*.parquet"):
        return []
    stages = _columns(folder / "rejects", ["stage"], hint="unibind describe")["stage"]
    return [{"stage": stage, "n": n} for stage, n in sorted(Counter(stages).items())]


def _sample_rows(order: Ints, category_N: Ints, most: int, seed: int) -> Ints:
    """Of rows sorted by category, at most `most` of each, drawn uniformly, in their order."""
    rng = np.random.default_rng(seed)
    shuffled = np.lexsort((rng.random(len(order)), category_N))
    starts_N = np.searchsorted(category_N, category_N, side="left")
    kept = shuffled[np.arange(len(order)) - starts_N < most]
    return order[np.sort(kept)]


def _more_categories(rows: list[dict[str, Any]], index: dict[str, int]) -> Ints | None:
    """The categories of samples beyond their first, or None where no sample has one: int64[N, L]."""
    longest = max(len(row["more_category_ids"] or ()) for row in rows)
    if longest == 0:
        return None
    more_NL = np.full((len(rows), longest), -1, dtype=np.int64)
    for more_L, row in zip(more_NL, rows, strict=True):
        categories = row["more_category_ids"] or ()
        more_L[: len(categories)] = [index[category] for category in categories]
    return more_NL


def _columns(path: Path, names: list[str], *, hint: str) -> dict[str, list[Any]]:
    """Some columns as lists; see `_table`."""
    table = _table(path, names, hint=hint)
    return {name: table[name].to_pylist() for name in names}


def _table(path: Path, names: list[str], *, hint: str) -> pa.Table:
    """Some columns of a Parquet file, or of all `*.parquet` files of a folder in name order."""
    files = names_in(path, "*.parquet") if path.is_dir() else [path]
    if not files:
        raise KnowledgeBaseError(f"{path}: empty; run `{hint}`")
    return pa.concat_tables([read_columns(file, names, hint=hint) for file in files])


def _places(names: pa.Array | pa.ChunkedArray, known: Sequence[str]) -> Ints:
    """The index of each name in `known`: int64[N]; -1 for an unknown name."""
    places = pc.fill_null(pc.index_in(names, value_set=pa.array(known, pa.string())), -1)
    return np.asarray(places.to_numpy(), dtype=np.int64)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
