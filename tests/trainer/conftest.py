"""A small real knowledge base with planted structure: categories are pairs of a material and a shape.

Its text vectors are sums of a material's and a shape's direction, and its sample features linear maps of the
same two, plus noise: what heads learn on the seen pairs must carry over to the unseen ones, and does not
where names and texts are permuted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb_builder.tables.schemas import CONTROLS, DESCRIPTIONS, REJECTS, SAMPLES, write_table
from tests.planted import description_row, write_categories, write_store

MATERIALS, SHAPES = 4, 3
MODALITIES = ("image", "audio", "point", "text")


@dataclass(frozen=True)
class World:
    """How large the planted world is, and how noisy."""

    seed: int = 0
    texts: int = 8  # per category
    objects: int = 10  # per category; of a seen one 6 train, 2 val, 2 test
    text_dim: int = 24
    feature_dim: int = 40
    zero_shot: bool = True
    sample_texts: bool = True
    labelled: bool = True
    noise: float = 0.15


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def build(kb: Path, world: World) -> Path:
    """Write the knowledge base: tables, vectors, encoders.json."""
    rng = np.random.default_rng(world.seed)
    materials = rng.normal(size=(MATERIALS, world.text_dim))
    shapes = rng.normal(size=(SHAPES, world.text_dim))
    common = 2 * rng.normal(size=world.text_dim)
    attributes = {
        f"m{m}-s{s}": (m, s, materials[m] + shapes[s]) for m in range(MATERIALS) for s in range(SHAPES)
    }
    unseen = {f"m{m}-s{m % SHAPES}" for m in range(SHAPES)}

    def text_vector(meaning: np.ndarray, noise: float) -> np.ndarray:
        return _unit(meaning + common + noise * np.sqrt(world.text_dim) * rng.normal(size=world.text_dim))

    write_categories(kb, {c: c.replace("-", " ") for c in attributes})
    vectors: dict[str, list[tuple[str, str, np.ndarray]]] = {}

    descriptions = []
    for c, (_, _, meaning) in attributes.items():
        for i in range(world.texts):
            row_id = hashlib.sha256(f"{c}/{i}".encode()).hexdigest()[:12]
            descriptions.append(description_row(row_id, kind="category", category_id=c))
            vectors.setdefault("category_texts", []).append((row_id, c, text_vector(meaning, 0.3)))
        descriptions.append(description_row(f"{c}-bad", kind="category", category_id=c, status="no_name"))
    write_table(kb / "descriptions" / "category" / "part-00000.parquet", descriptions, DESCRIPTIONS)

    controls = []
    for control, count, noise in (("class_name", 1, 0.2), ("templates", 10, 0.4), ("random_words", 10, 1.5)):
        for c, (_, _, meaning) in attributes.items():
            for rank in range(count):
                row_id = f"{control}-{c}-{rank}"
                controls.append(
                    {"row_id": row_id, "control": control, "category_id": c, "rank": rank, "text": row_id}
                )
                vectors.setdefault("controls", []).append((row_id, c, text_vector(meaning, noise)))
    for described in descriptions:
        if described["status"] == "ok":
            row_id, c = f"name_free-{described['row_id']}", described["category_id"]
            row = {"row_id": row_id, "control": "name_free", "category_id": c, "rank": 0, "text": row_id}
            controls.append({**row, "stands_for": described["row_id"]})
            vectors["controls"].append((row_id, c, text_vector(attributes[c][2], 0.3)))
    write_table(kb / "controls.parquet", controls, CONTROLS)

    maps = {m: rng.normal(size=(world.text_dim, world.feature_dim)) for m in MODALITIES}
    offsets = {m: 5 * rng.normal(size=world.feature_dim) for m in MODALITIES}
    samples, own = [], []
    for c, (_, _, meaning) in attributes.items():
        for o in range(world.objects):
            share = o / world.objects
            split = "test" if c in unseen or share >= 0.8 else "val" if share >= 0.6 else "train"
            thing = meaning + world.noise * rng.normal(size=world.text_dim)
            for modality in MODALITIES:
                sample = f"{c}-{o:02d}-{modality}"
                samples.append(
                    {
                        "sample_id": sample,
                        "object_id": f"{c}-{o:02d}",
                        "modality": modality,
                        "uri": f"{sample}.bin",
                        "category_id": c if world.labelled else None,
                        "split": split,
                        "sha256": "0" * 64,
                        "bytes": 1,
                    }
                )
                if modality == "text":
                    vectors.setdefault("text_samples", []).append((sample, "text", text_vector(thing, 0.3)))
                    continue
                feature = thing @ maps[modality] + offsets[modality]
                feature = _unit(feature + world.noise * rng.normal(size=world.feature_dim))
                vectors.setdefault("samples", []).append((sample, modality, feature))
                if modality == "image":
                    vectors.setdefault("zero", []).append((sample, modality, text_vector(thing, 0.6)))
                if world.sample_texts:
                    own.append(
                        description_row(f"own-{sample}", kind="sample", sample_id=sample, modality=modality)
                    )
                    vectors.setdefault("sample_texts", []).append(
                        (f"own-{sample}", modality, text_vector(thing, 0.5))
                    )
    write_table(kb / "samples.parquet", samples, SAMPLES)
    if own:
        write_table(kb / "descriptions" / "sample" / "part-00000.parquet", own, DESCRIPTIONS)
    write_table(
        kb / "rejects" / "ingest.parquet",
        [{"sample_id": "gone", "stage": "ingest", "reason": "missing file"}],
        REJECTS,
    )

    places = {
        "category_texts": "txt-0/category_texts",
        "controls": "txt-0/controls",
        "text_samples": "txt-0/samples",
        "sample_texts": "txt-0/sample_texts",
        "samples": "img-0/samples",
        "zero": "zs-0/samples",
    }
    if not world.zero_shot:
        del vectors["zero"]
    write_store(
        kb,
        {places[name]: rows for name, rows in vectors.items()},
        roles={"text": "txt-0", "samples": "img-0", "zero_shot": "zs-0" if world.zero_shot else None},
        parameters={"txt-0": 1000, "img-0": 98400},
    )
    return kb


@pytest.fixture
def make_kb(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a planted knowledge base; its options are the fields of `World`."""

    def make(**options: Any) -> Path:
        return build(tmp_path / "kb", World(**options))

    return make


@pytest.fixture(scope="session")
def planted_kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One planted knowledge base for tests that only read it."""
    return build(tmp_path_factory.mktemp("planted") / "kb", World())
