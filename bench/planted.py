"""Generate a knowledge base of any size to evaluate, with categories about as separable as real ones.

A category is a direction added to one that all share; its texts and samples scatter around it, control texts
more than descriptions. Most of the variance lies in a few dimensions, as in the spaces of real encoders:
about half of the samples are classified rightly. Only the files that evaluation reads are written. Shapes: N
rows, C categories, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.vectors import unit
from data.files import write_json
from kb_builder.store.table import write_vectors
from kb_builder.tables.schemas import CATEGORIES, CONTROLS, DESCRIPTIONS, SAMPLES, write_table

# How far rows scatter around their category's direction (of length 1, as the shared one is).
TEXT, SAMPLE, CONTROL = 0.8, 1.6, {"class_name": 0.6, "templates": 1.0, "random_words": 1.4}
_INNER = 24  # dimensions with most of the variance


def plant(kb: Path, *, categories: int, k: int, test: int, val: int, dim: int) -> Path:
    """Write it: `k` descriptions and control texts per category; one train sample each, so that all are seen.

    It has a text encoder, a zero-shot encoder and one modality.
    """
    names = [f"category-{c:04d}" for c in range(categories)]
    means_CD = _scatter(categories, dim, seed=0) + unit(1, dim=dim, seed=1)
    write_table(
        kb / "categories.parquet",
        [{"category_id": c, "name": c, "aliases": [], "parent": None, "notes": None} for c in names],
        CATEGORIES,
    )
    texts, shared = kb / "embeddings" / "texts", kb / "embeddings" / "shared"

    owner_N = np.repeat(np.arange(categories), k)
    rows = [(f"{row:016x}", names[c]) for row, c in enumerate(owner_N.tolist())]
    write_table(
        kb / "descriptions" / "category" / "part-00000.parquet", list(map(_description, rows)), DESCRIPTIONS
    )
    _store(texts / "category_texts", rows, _around(means_CD[owner_N], TEXT, seed=2))

    controls: list[dict[str, Any]] = []
    vectors = []
    for seed, (control, spread) in enumerate(CONTROL.items(), 3):
        owner_N = np.repeat(np.arange(categories), 1 if control == "class_name" else k)
        ranks = np.arange(len(owner_N)) % (len(owner_N) // categories)
        controls += [
            {
                "row_id": f"{control}-{row}",
                "control": control,
                "category_id": names[c],
                "rank": rank,
                "text": control,
            }
            for row, (c, rank) in enumerate(zip(owner_N.tolist(), ranks.tolist(), strict=True))
        ]
        vectors.append(_around(means_CD[owner_N], spread, seed=seed))
    write_table(kb / "controls.parquet", controls, CONTROLS)
    rows = [(row["row_id"], row["category_id"]) for row in controls]
    _store(texts / "controls", rows, np.concatenate(vectors))

    splits = ["train"] * categories + ["val"] * val + ["test"] * test
    owner_N = np.arange(len(splits)) % categories
    rows = [(f"sample-{row:06d}", "image") for row in range(len(splits))]
    write_table(
        kb / "samples.parquet",
        [
            {
                "sample_id": sample,
                "object_id": None,
                "modality": modality,
                "uri": sample,
                "category_id": names[c],
                "split": split,
                "sha256": "",
                "bytes": 1,
            }
            for (sample, modality), c, split in zip(rows, owner_N.tolist(), splits, strict=True)
        ],
        SAMPLES,
    )
    _store(shared / "samples", rows, _around(means_CD[owner_N], SAMPLE, seed=9))
    for folder in (texts, shared):
        write_json(folder / "encoder.json", {"name": folder.name})
    roles = {"text": texts.name, "samples": None, "zero_shot": shared.name}
    write_json(kb / "embeddings" / "encoders.json", roles)
    return kb


def _scatter(n: int, dim: int, *, seed: int) -> Any:
    """Rows of about unit length, four fifths of it (squared) in the inner dimensions."""
    inner_DI = np.linalg.qr(unit(dim, dim=_INNER, seed=1_000))[0].astype(np.float32)
    return 0.9 * unit(n, dim=_INNER, seed=seed) @ inner_DI.T + 0.45 * unit(n, dim=dim, seed=seed + 100)


def _around(means_ND: Any, spread: float, *, seed: int) -> Any:
    """Unit rows around their means."""
    x_ND = means_ND + spread * _scatter(*means_ND.shape, seed=seed)
    return x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)


def _store(folder: Path, rows: list[tuple[str, str]], vectors_ND: Any) -> None:
    write_vectors(folder, ids=[i for i, _ in rows], groups=[g for _, g in rows], vectors_ND=vectors_ND)


def _description(row: tuple[str, str]) -> dict[str, Any]:
    """A row of the descriptions table, with placeholders in columns that evaluation does not read."""
    filled = {f.name: None if f.nullable else "" if pa.types.is_string(f.type) else 0 for f in DESCRIPTIONS}
    return {**filled, "kind": "category", "row_id": row[0], "category_id": row[1], "status": "ok"}
