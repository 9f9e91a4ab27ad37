"""A small project of every kind of input, to be edited, run, and compared with a fresh run of the same."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.errors import UniBindError
from data.files import hash_file
from data.seals import SEAL
from kb_builder.encode.exchange import import_vectors
from pipeline.project import ProjectFile, load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stage, run_stages
from tests.once import once

CATEGORIES = ("red fox", "snow owl", "oak tree", "pond")
COLUMNS = ("sample_id", "uri", "modality", "category", "split", "object_id", "description")
# When an answer came and how long it took; of two runs they are never the same.
_TIMES = ["created_at", "latency_ms"]
# Not compared: checksums are of files that are.
_RECORDS = frozenset({"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "run.lock", "ledger.lock"})
_DIM = 6  # of the vectors that are imported

Run = Callable[["World", Path], "Outcome"]


@dataclass
class World:
    """What a user has: a manifest, a category list, files, settings, vectors made elsewhere."""

    rows: list[dict[str, str]]
    categories: list[dict[str, str]]
    files: dict[str, bytes]
    settings: dict[str, dict[str, Any]]
    models: Path
    imported: int = 0  # which vectors; another number, other vectors

    def exchange_weights(self, name: str, seed: int) -> None:
        """Other weights in place of an encoder's: the same names, shapes, size and time of change."""
        _exchange_weights(self.models / name, seed)

    def picture(self, seed: int, tint: int) -> bytes:
        """A small uncompressed picture: any two have the same number of bytes."""
        return _picture(seed, tint)

    def write(self, folder: Path) -> None:
        """Bring a project's folder up to this; files that stay the same are not touched."""
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "samples.csv", _csv(COLUMNS, self.rows))
        _put(folder / "categories.csv", _csv(("category_id", "name", "aliases", "notes"), self.categories))
        _put(folder / "unibind.toml", _toml(self.settings))
        for name, content in self.files.items():
            _put(folder / name, content)
        for path in sorted((folder / "media").iterdir()):
            if f"media/{path.name}" not in self.files:
                path.unlink()


@dataclass(frozen=True)
class Outcome:
    """What a run came to: an error's line, or every file of it by name, as something to compare."""

    error: str | None
    files: dict[str, Any] = field(default_factory=dict)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def _csv(columns: tuple[str, ...], rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _toml(settings: dict[str, dict[str, Any]]) -> bytes:
    lines = []
    for section, values in settings.items():
        lines += [f"[{section}]"] if section else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return ("\n".join(lines) + "\n").encode()


def _picture(seed: int, tint: int) -> bytes:
    draw = np.random.default_rng(seed)
    pixels = np.clip(draw.integers(0, 120, (32, 32, 3)) + 30 * tint, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _start(models: Path) -> World:
    rows, files = [], {}
    for c, category in enumerate(CATEGORIES):
        for o, split in enumerate(("train", "train", "val", "test")):
            for modality, ending in (("image", "bmp"), ("text", "txt")):
                if modality == "text" and o == 1:
                    continue
                uri = f"media/{c}-{o}.{ending}"
                files[uri] = _picture(10 * c + o, c) if ending == "bmp" else f"a {category} no {o}".encode()
                cells = (f"{c}-{o}-{modality}", uri, modality, category, split, f"{c}-{o}", "")
                rows.append(dict(zip(COLUMNS, cells, strict=True)))
    rows[0]["description"] = "a fox in the snow"
    categories = [
        {"category_id": f"c{c}", "name": name, "aliases": "", "notes": ""}
        for c, name in enumerate(CATEGORIES)
    ]
    model = f"clip:{models / 'one'}"
    settings: dict[str, dict[str, Any]] = {
        "": {"name": "p", "seed": 1},
        "data": {"manifest": "samples.csv", "categories": "categories.csv"},
        "describe.categories": {"describer": "fake", "n": 3, "near_cosine": "off", "contrast_texts": 2},
        "describe.samples": {"describer": "facts"},
        "encode": {"text": model, "samples": model, "zero_shot": model, "device": "cpu"},
        "localize": {"k": 3},
        "train": {"epochs": 2, "device": "cpu"},
        "evaluate": {
            "bootstrap": 10,
            "few_shot": [],
            "sweeps": False,
            "probe": False,
            "baselines": False,
            "stacking_folds": 2,
            "repeats": 2,
        },
    }
    return World(rows, categories, files, settings, models)


@pytest.fixture
def models(save_clip: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with two small encoders of one space's size, `one` and `two`, of other weights."""
    return _models(save_clip, tmp_path / "models")


def _models(save_clip: Callable[[str], Path], folder: Path) -> Path:
    # Seeds whose shards have equal sizes: the checksum of a Parquet page takes four bytes or five.
    for name, seed in (("one", None), ("two", 8)):
        shutil.copytree(save_clip("clip-long"), folder / name)
        if seed is not None:
            _exchange_weights(folder / name, seed)
    return folder


def _exchange_weights(folder: Path, seed: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state, before = load_file(path), path.stat()
    draw = torch.Generator().manual_seed(seed)
    changed = {
        key: torch.randn(value.shape, generator=draw) * 0.3 if value.is_floating_point() else value
        for key, value in state.items()
    }
    save_file(changed, path, metadata={"format": "pt"})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.fixture
def world(models: Path) -> World:
    """The project as it is before the first edit."""
    return _start(models)


@pytest.fixture(scope="session")
def start_world(save_clip: Callable[[str], Path]) -> Callable[[Path], World]:
    """The project as it is before the first edit, with its encoders in a folder."""
    return lambda folder: _start(_models(save_clip, folder))


@pytest.fixture(scope="session")
def finished_once(save_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a file of every kind, run to its end; not to be changed."""

    def make(root: Path) -> None:
        world = _start(_models(save_clip, root / "models"))
        world.rows[1]["split"] = "test"
        world.files["media/3-3.bmp"] = b"no picture"
        world.files["media/2-3.bmp"] = b""
        world.write(root / "project")
        project = load_project(root / "project" / "unibind.toml")
        run_stages(project, plan(project))

    return once(tmp_path_factory, "finished-once", make) / "project"


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(finished_once, tmp_path / "finished"))


@pytest.fixture
def run() -> Run:
    """Bring a folder's project up to a world, run it to its end as `unibind run` does, and look at it."""

    def run(world: World, folder: Path) -> Outcome:
        world.write(folder)
        try:
            project = load_project(folder / "unibind.toml")
            if project.encode.samples == "imported:x":
                _import(project, world)
            run_stages(project, plan(project))
        except UniBindError as error:
            return Outcome(str(error).replace(str(folder), "."))
        return Outcome(None, contents(project))

    return run


@pytest.fixture(scope="session")
def contents_of() -> Callable[[ProjectFile], dict[str, Any]]:
    """Every file of a run as something to compare."""
    return contents


def _import(project: ProjectFile, world: World) -> None:
    """What `unibind kb import` does after `unibind describe`, before `unibind encode`."""
    run_stage(project, "world")
    run_stage(project, "ingest")
    rows = pq.read_table(project.kb / "samples.parquet").to_pylist()
    ids = [row["sample_id"] for row in rows if row["modality"] == "image"]
    draws = [np.random.default_rng([world.imported, int(name.split("-")[0])]) for name in ids]
    noise = [np.random.default_rng([world.imported, n]) for n in range(len(ids))]
    x_ND = np.stack(
        [a.normal(size=_DIM) + b.normal(size=_DIM) / 2 for a, b in zip(draws, noise, strict=True)]
    )
    np.save(project.path.parent / "x.npy", x_ND.astype(np.float32))
    (project.path.parent / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    matrix, names = project.path.parent / "x.npy", project.path.parent / "ids.txt"
    import_vectors(project.kb, matrix, names, table="samples", name="x", dtype=project.encode.dtype)


def contents(project: ProjectFile) -> dict[str, Any]:
    """Every file of a run by name, as something to compare: times apart, and what is kept for later apart.

    Not compared are the ledger (the record of who was asked when), marks, and the folders of encoders that
    serve no longer.
    """
    found: dict[str, Any] = {}
    roles = json.loads((project.kb / "embeddings" / "encoders.json").read_text(encoding="utf-8"))
    for path in sorted(path for path in project.run.rglob("*") if path.is_file()):
        name = path.relative_to(project.run).as_posix()
        parts = name.split("/")
        if parts[0] in {"stages", "unused"} or path.name in {*_RECORDS, SEAL}:
            continue
        if parts[:2] == ["kb", "embeddings"] and len(parts) > 3 and parts[2] not in roles.values():
            continue
        found[name] = _content(path, name)
    return found


def _content(path: Path, name: str) -> Any:
    if name.startswith("kb/descriptions/") and path.suffix == ".parquet":
        return pq.read_table(path).drop_columns(_TIMES).to_pylist()
    if name == "kb/descriptions/manifest.json":
        told = json.loads(path.read_text(encoding="utf-8"))
        return {file: [part["rows"], part["statuses"]] for file, part in told["parts"].items()}
    if name == "metrics.json":
        told = json.loads(path.read_text(encoding="utf-8"))
        return {**told, "stages": [stage["name"] for stage in told["stages"]]}
    if name == "report.html":
        page = path.read_text(encoding="utf-8")
        return re.sub(r'<section id="stages">.*?</section>', "", page, flags=re.DOTALL)
    return hash_file(path)
