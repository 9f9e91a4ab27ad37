"""What training and evaluation need of a knowledge base, as matrices.

Tables and vectors are joined here, once. Whatever does not meet its counterpart (a sample without a vector, a
description that was never encoded) is counted and reported, never silently dropped; vectors whose row is gone
or no longer `ok` are stale and not used.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import KnowledgeBaseError
from kb_builder.store import Vectors, read_vectors
from trainer.records import Bools, Centers, Floats, SampleSet


@dataclass(frozen=True)
class KnowledgeBase:
    """The tables of a knowledge base that every step needs, and where its vectors lie."""

    folder: Path
    categories: tuple[str, ...]  # ids, sorted
    names: tuple[str, ...]  # as people call them, in the same order
    samples: tuple[dict[str, Any], ...]  # rows of samples.parquet, sorted by sample_id
    encoders: dict[str, Path | None]  # "text", "samples", "zero_shot" -> folder
    index: dict[str, int] = field(repr=False)  # category id -> its place in `categories`

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
    samples = _columns(folder / "samples.parquet", columns, hint="unibind describe")
    table = [dict(zip(columns, row, strict=True)) for row in zip(*samples.values(), strict=True)]
    unknown = sorted({row["category_id"] for row in table} - set(names) - {None})
    if unknown:
        raise KnowledgeBaseError(
            f"{folder / 'samples.parquet'}: the category {unknown[0]!r} is not in categories.parquet;"
            " delete both and run `unibind describe`"
        )
    return KnowledgeBase(
        folder=folder,
        categories=tuple(names),
        names=tuple(names.values()),
        samples=tuple(sorted(table, key=lambda row: str(row["sample_id"]))),
        encoders=_encoder_folders(folder / "embeddings"),
        index={category: number for number, category in enumerate(names)},
    )


def _encoder_folders(embeddings: Path) -> dict[str, Path | None]:
    path = embeddings / "encoders.json"
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
        return {role: None if name is None else embeddings / Path(name).name for role, name in named.items()}
    except FileNotFoundError as error:
        raise KnowledgeBaseError(f"{path}: nothing is encoded yet; run `unibind encode`") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise KnowledgeBaseError(f"{path}: damaged ({error}); run `unibind encode` again") from error


def encoder_card(folder: Path) -> dict[str, Any]:
    """What an encoder's folder says of it (encoder.json): name, identity, dim, parameters …"""
    path = folder / "encoder.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KnowledgeBaseError(
            f"{path}: missing or damaged ({error}); run `unibind encode` again"
        ) from error
    if not isinstance(card, dict):
        raise KnowledgeBaseError(f"{path}: not a JSON object; run `unibind encode` again")
    return card


def load_descriptions(kb: KnowledgeBase) -> tuple[Centers, dict[str, int]]:
    """The encoded `ok` descriptions of all categories, sorted by (category, row_id); and what was missing."""
    folder = kb.folder / "descriptions" / "category"
    rows = _columns(folder, ["row_id", "category_id", "status"], hint="unibind describe")
    chosen = [
        (row_id, category)
        for row_id, category, status in zip(*rows.values(), strict=True)
        if status == "ok" and category in kb.index
    ]
    keys = {row_id: (kb.index[category], row_id) for row_id, category in chosen}
    return _texts(kb, read_vectors(kb.encoder("text") / "category_texts"), keys)


def load_controls(kb: KnowledgeBase) -> dict[str, Centers]:
    """The encoded control texts, control by control, rows sorted by (category, rank)."""
    path = kb.folder / "controls.parquet"
    rows = _columns(path, ["row_id", "control", "category_id", "rank"], hint="unibind describe")
    keys: dict[str, dict[str, tuple[int, Any]]] = {}
    for row_id, control, category, rank in zip(*rows.values(), strict=True):
        if category in kb.index:
            keys.setdefault(control, {})[row_id] = (kb.index[category], (rank, row_id))
    if not keys:
        return {}
    vectors = read_vectors(kb.encoder("text") / "controls")
    return {control: _texts(kb, vectors, keys[control])[0] for control in sorted(keys)}


def _texts(
    kb: KnowledgeBase, vectors: Vectors, keys: dict[str, tuple[int, Any]]
) -> tuple[Centers, dict[str, int]]:
    """The vectors of the rows in `keys` (row id -> category index, sort key), sorted; what was missing."""
    place = {row_id: row for row, row_id in enumerate(vectors.ids)}
    found = sorted((key, row_id) for row_id, key in keys.items() if row_id in place)
    row_ids = tuple(row_id for _, row_id in found)
    centers = Centers(
        categories=kb.categories,
        row_ids=row_ids,
        category_N=np.array([keys[row_id][0] for row_id in row_ids], dtype=np.int64),
        vectors_ND=vectors.vectors_ND[[place[row_id] for row_id in row_ids]],
    )
    return centers, {"texts_without_vector": len(keys) - len(found)}


def load_samples(kb: KnowledgeBase, role: str) -> tuple[dict[str, SampleSet], dict[str, int]]:
    """The encoded samples of every modality, as the encoder in a role ("samples" or "zero_shot") sees them.

    Samples of the modality `text` come from the text encoder in either role, for they need no other.
    Returns the sets by modality, and `samples_without_vector` by modality (only those where there are some).
    """
    vectors: dict[str, Floats] = {}
    for folder in dict.fromkeys((kb.encoder(role), kb.encoder("text"))):
        if any((folder / "samples").glob("part-*.parquet")):
            read = read_vectors(folder / "samples")
            vectors |= dict(zip(read.ids, read.vectors_ND, strict=True))
    objects = {name: i for i, name in enumerate(sorted({row["object_id"] for row in kb.samples} - {None}))}
    sets: dict[str, SampleSet] = {}
    missing: dict[str, int] = {}
    for modality in sorted({row["modality"] for row in kb.samples}):
        rows = [row for row in kb.samples if row["modality"] == modality]
        found = [row for row in rows if row["sample_id"] in vectors]
        if len(found) < len(rows):
            missing[modality] = len(rows) - len(found)
        if found:
            sets[modality] = SampleSet(
                modality=modality,
                sample_ids=tuple(row["sample_id"] for row in found),
                splits_N=np.array([row["split"] for row in found]),
                category_N=np.array([kb.index.get(row["category_id"], -1) for row in found], dtype=np.int64),
                object_N=np.array([objects.get(row["object_id"], -1) for row in found], dtype=np.int64),
                vectors_ND=np.stack([vectors[row["sample_id"]] for row in found]),
            )
    return sets, missing


@dataclass(frozen=True)
class SampleTexts:
    """The encoded descriptions of samples, and which rows of the matrix belong to which sample."""

    rows: dict[str, tuple[int, ...]]  # sample id -> rows
    vectors_ND: Floats


def load_sample_texts(kb: KnowledgeBase) -> tuple[SampleTexts, dict[str, int]]:
    """The encoded `ok` descriptions of the samples, and what was missing. None at all is no error."""
    folder = kb.folder / "descriptions" / "sample"
    if not any(folder.glob("*.parquet")):
        return SampleTexts({}, np.zeros((0, 0), np.float32)), {"sample_texts_without_vector": 0}
    rows = _columns(folder, ["row_id", "sample_id", "status"], hint="unibind describe")
    owners = {row_id: sample for row_id, sample, status in zip(*rows.values(), strict=True) if status == "ok"}
    if not owners:
        return SampleTexts({}, np.zeros((0, 0), np.float32)), {"sample_texts_without_vector": 0}
    vectors = read_vectors(kb.encoder("text") / "sample_texts")
    found: dict[str, list[int]] = {}
    for row in sorted(range(len(vectors.ids)), key=lambda row: vectors.ids[row]):
        owner = owners.get(vectors.ids[row])
        if owner is not None:
            found.setdefault(owner, []).append(row)
    texts = SampleTexts({sample: tuple(found[sample]) for sample in sorted(found)}, vectors.vectors_ND)
    return texts, {"sample_texts_without_vector": len(owners) - sum(map(len, found.values()))}


def seen_categories(kb: KnowledgeBase) -> Bools:
    """Bool[C]: does any labelled train sample, of any modality, show this category?"""
    trained = {row["category_id"] for row in kb.samples if row["split"] == "train"}
    return np.array([category in trained for category in kb.categories], dtype=np.bool_)


def count_rejects(folder: Path) -> list[dict[str, Any]]:
    """Rows {stage, n}: how many samples each stage turned away; sorted by stage."""
    if not any((folder / "rejects").glob("*.parquet")):
        return []
    stages = _columns(folder / "rejects", ["stage"], hint="unibind describe")["stage"]
    return [{"stage": stage, "n": n} for stage, n in sorted(Counter(stages).items())]


def _columns(path: Path, names: list[str], *, hint: str) -> dict[str, list[Any]]:
    """Some columns of a Parquet file, or of all `*.parquet` files of a folder in name order."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise KnowledgeBaseError(f"{path}: empty; run `{hint}`")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for file in files:
        try:
            table = pq.ParquetFile(file).read(columns=names)
        except FileNotFoundError as error:
            raise KnowledgeBaseError(f"{file}: missing; run `{hint}`") from error
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise KnowledgeBaseError(f"{file}: damaged ({reason}); delete it and run `{hint}`") from error
        for name in names:
            if name not in table.column_names:
                raise KnowledgeBaseError(f"{file}: no column {name!r}; delete it and run `{hint}`")
            columns[name] += table.column(name).to_pylist()
    return columns
