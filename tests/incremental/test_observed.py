"""What a stage was made from is observed; here that is held against what really changes its output.

Each file of the user, the knowledge base and the run is altered in turn, and whatever stage gives something
else when it is run afresh must have been called stale. And what the kernel saw a stage open is compared with
what it noted, both ways.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from data.errors import UniBindError
from data.reads import recorded
from data.seals import SEAL, discard
from kb_builder.encoders import release_encoders
from kb_builder.encoders.tokens import token_counter
from kb_builder.store.table import read_manifest, write_vectors
from pipeline.project import ProjectFile, load_project
from pipeline.run.code import MACHINERY, PACKAGES, ROOT, files
from pipeline.run.jobs import STAGES
from pipeline.run.runner import run_stage
from pipeline.run.stage import Stage
from pipeline.run.stale import is_current

World = Any  # as conftest.py has it
Alter = Callable[[Path], None]
_KB = "runs/p/kb"


def _cell(path: str, column: str, change: Callable[[Any], Any], row: int = 0) -> Alter:
    """Another value in one cell of a table."""

    def alter(folder: Path) -> None:
        table = pq.read_table(folder / path)
        values = table[column].to_pylist()
        assert change(values[row]) != values[row]
        values[row] = change(values[row])
        field = table.schema.field(column)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, field, pa.array(values, field.type)), folder / path)

    return alter


def _vector(table: str) -> Alter:
    """The first two vectors of a table of the store change places."""

    def alter(folder: Path) -> None:
        (place,) = (folder / _KB / "embeddings").glob(f"*/{table}")
        manifest = read_manifest(place)
        assert manifest is not None
        rows = [row for part in sorted(place.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
        x_ND = np.array([row["vector"] for row in rows], np.float32)
        x_ND[[0, 1]] = x_ND[[1, 0]]
        columns = {f"{name}s": [row[name] for row in rows] for name in ("id", "group", "content")}
        write_vectors(place, **columns, vectors_ND=x_ND, dtype=manifest["dtype"], encoder=manifest["encoder"])

    return alter


def _text(path: str, old: str, new: str) -> Alter:
    def alter(folder: Path) -> None:
        text = (folder / path).read_text(encoding="utf-8")
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return alter


def _json(pattern: str, change: Callable[[Any], Any]) -> Alter:
    def alter(folder: Path) -> None:
        (path,) = folder.glob(pattern)
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
        path.write_text(json.dumps(value), encoding="utf-8")

    return alter


def _lose(pattern: str) -> Alter:
    def alter(folder: Path) -> None:
        next(iter(sorted(folder.glob(pattern)))).unlink()

    return alter


def _heads(folder: Path) -> None:
    from safetensors import safe_open

    path = folder / "runs/p/heads.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(
        {name: tensor[::-1].copy() for name, tensor in load_file(path).items()}, path, metadata=metadata
    )


def _answer(folder: Path) -> None:
    """Another answer in the ledger, to a request that a description cites."""
    part = pq.read_table(folder / _KB / "descriptions/category/part-00000.parquet").to_pylist()[0]
    with closing(sqlite3.connect(folder / _KB / "ledger.sqlite")) as ledger, ledger:
        (answer,) = ledger.execute(
            "SELECT answer FROM entries WHERE key = ?", (part["request_key"],)
        ).fetchone()
        assert " a " in answer
        changed = (answer.replace(" a ", " one ", 1), part["request_key"])
        ledger.execute("UPDATE entries SET answer = ? WHERE key = ?", changed)


def _half(metrics: dict[str, Any]) -> None:
    metrics["recognition"][0]["top1"] = 0.5


def _other(value: str) -> str:
    return {"train": "test", "c0": "c1", "c1": "c0"}.get(value, f"{value}x")


ALTERED: dict[str, Alter] = {
    "manifest, a label": _text("samples.csv", "red fox", "pond"),
    "manifest, a split": _text("samples.csv", "train", "test"),
    "manifest, a description": _text("samples.csv", "a fox in the snow", "a fox in the rain"),
    "category list, a name": _text("categories.csv", "c3,pond", "c3,pool"),
    "a picture": lambda folder: shutil.copy(folder / "media/1-1.bmp", folder / "media/0-0.bmp") and None,
    "a text": lambda folder: shutil.copy(folder / "media/1-0.txt", folder / "media/0-0.txt") and None,
    "a picture lost": _lose("media/0-0.bmp"),
    "categories, a name": _cell(f"{_KB}/categories.parquet", "name", _other),
    "categories, notes": _cell(f"{_KB}/categories.parquet", "notes", lambda _: "barks at night"),
    "samples, a label": _cell(f"{_KB}/samples.parquet", "category_id", _other),
    "samples, a split": _cell(f"{_KB}/samples.parquet", "split", _other),
    "samples, an object": _cell(f"{_KB}/samples.parquet", "object_id", _other),
    "samples, a content": _cell(f"{_KB}/samples.parquet", "sha256", lambda value: value[::-1]),
    "samples, a size": _cell(f"{_KB}/samples.parquet", "bytes", lambda value: value + 1),
    "a given description": _cell(f"{_KB}/given_descriptions.parquet", "text", _other),
    "a category's text": _cell(f"{_KB}/descriptions/category/part-00000.parquet", "text", _other),
    "a category's status": _cell(
        f"{_KB}/descriptions/category/part-00000.parquet", "status", lambda _: "refusal"
    ),
    "a category's parts lost": _lose(f"{_KB}/descriptions/category/part-00000.parquet"),
    "a contrast": _cell(f"{_KB}/descriptions/category/contrast-00000.parquet", "text", _other),
    "a sample's text": _cell(f"{_KB}/descriptions/sample/part-00000.parquet", "text", _other),
    "a sample's status": _cell(
        f"{_KB}/descriptions/sample/part-00000.parquet", "status", lambda _: "refusal", row=1
    ),
    "the list of parts": _json(f"{_KB}/descriptions/manifest.json", lambda value: value["parts"].popitem()),
    "a reject of ingest": _cell(f"{_KB}/rejects/ingest.parquet", "stage", _other),
    "a reject of describe": _cell(f"{_KB}/rejects/describe-00000.parquet", "reason", _other),
    "a reject of encode": _cell(f"{_KB}/rejects/encode.parquet", "reason", _other),
    "a control's text": _cell(f"{_KB}/controls.parquet", "text", _other),
    "a control's rank": _cell(f"{_KB}/controls.parquet", "rank", lambda value: value + 90, row=-1),
    "vectors of category texts": _vector("category_texts"),
    "vectors of sample texts": _vector("sample_texts"),
    "vectors of controls": _vector("controls"),
    "vectors of samples": _vector("samples"),
    "a vector lost": _lose(f"{_KB}/embeddings/*/samples/*.parquet"),
    "the encoders' roles": _json(
        f"{_KB}/embeddings/encoders.json", lambda value: value.update(zero_shot=None)
    ),
    "an encoder's card": _json(f"{_KB}/embeddings/*/encoder.json", lambda value: value.update(parameters=7)),
    "a center": _cell(f"{_KB}/centers.parquet", "rank", lambda value: 9),
    "the centers lost": _lose(f"{_KB}/centers.parquet"),
    "the heads": _heads,
    "the heads lost": _lose("runs/p/heads.safetensors"),
    "the training's log": _cell("runs/p/train_log.parquet", "temperature", lambda value: value + 1),
    "the evaluation": _json("runs/p/evaluation.json", _half),
    "an answer": _answer,
}


@pytest.fixture(scope="module")
def honest(finished_once: Path, contents_of: Any) -> dict[str, dict[str, Any]]:
    """What each stage wrote of the project before anything is altered."""
    found = contents_of(load_project(finished_once / "unibind.toml"))
    return {stage.name: _written(finished_once, stage, found) for stage in STAGES}


@pytest.mark.parametrize("what", ALTERED)
def test_a_stage_that_would_give_something_else_is_called_stale(
    what: str, finished: Path, honest: dict[str, dict[str, Any]], tmp_path: Path, contents_of: Any
) -> None:
    """Whatever stage's output would be another, run afresh on the altered file, does not count as done."""
    ALTERED[what](finished)
    project = load_project(finished / "unibind.toml")
    for folder in (project.run, project.kb):  # else the checksums name the file before any stage is asked
        discard(folder)
    called = {stage.name for stage in STAGES if not is_current(project, stage.name)}
    assert called, "nobody notices that"
    for stage in STAGES:
        if stage.name in called:
            continue
        copy = tmp_path / "again" / stage.name
        shutil.copytree(finished, copy)
        _forget(copy, stage)
        try:
            own = load_project(copy / "unibind.toml")
            run_stage(own, stage.name)
            again = _written(copy, stage, contents_of(own))
        except UniBindError as error:
            again = {"error": str(error)}
        assert again == honest[stage.name], f"{stage.name} was not called stale"


def _written(folder: Path, stage: Stage, contents: dict[str, Any]) -> dict[str, Any]:
    """Of the contents of a run those of a stage's own files."""
    project = load_project(folder / "unibind.toml")
    own = {path.relative_to(project.run).as_posix() for path in stage.outputs(project)}
    return {file: value for file, value in contents.items() if file in own}


def _forget(folder: Path, stage: Stage) -> None:
    """Let a stage be as if it had never run."""
    project: ProjectFile = load_project(folder / "unibind.toml")
    for path in list(stage.outputs(project)):
        path.unlink(missing_ok=True)
    for mark in (project.run / "stages").glob(f"{stage.name}*.json"):
        mark.unlink()


class _Watch:
    """The files below some folders that any code of any process opens (by Linux's inotify)."""

    _OPEN, _NONBLOCK = 0x20, 0o4000

    def __init__(self, *folders: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(self._NONBLOCK)
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}
        for folder in folders:
            for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(each), self._OPEN)
                assert watch >= 0, os.strerror(ctypes.get_errno())
                self._folders[watch] = each

    def opened(self) -> set[str]:
        """What was opened since it was made."""
        found: set[str] = set()
        while True:
            try:
                events = os.read(self._descriptor, 2**20)
            except BlockingIOError:
                os.close(self._descriptor)
                return found
            while events:
                watch, _, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0")
                events = events[16 + length :]
                path = self._folders[watch] / os.fsdecode(name)
                if name and path.is_file():
                    found.add(str(path))


@contextmanager
def _executed() -> Iterator[set[Path]]:
    """The files of our source that any thread runs code of."""
    names: set[str] = set()

    def see(frame: Any, event: str, argument: object) -> None:
        if event == "call":
            names.add(frame.f_code.co_filename)

    found: set[Path] = set()
    threading.setprofile(see)
    sys.setprofile(see)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    ours = (ROOT / package for package in PACKAGES)
    folders = tuple(f"{folder}/" for folder in ours)
    found.update(Path(name) for name in names if name.startswith(folders))


@dataclass(frozen=True)
class _Seen:
    """What a stage was seen to do: files opened, files noted, media that it may open, source that ran."""

    opened: set[str]
    noted: set[str]
    media: set[str]
    executed: set[Path]


@pytest.fixture(scope="module")
def seen(start_world: Callable[[Path], World], tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Seen]:
    """Every stage of a fresh run, watched; its own files, the ledger and lists that all write left out."""
    root = tmp_path_factory.mktemp("watched")
    world = start_world(root / "models")
    folder = root / "project"
    world.write(folder)
    project = load_project(folder / "unibind.toml")
    found = {}
    for stage in STAGES:
        release_encoders()  # what is kept in memory is noted, but not opened again
        token_counter.forget()  # type: ignore[attr-defined]
        watch = _Watch(folder, world.models)
        with recorded() as recorder, _executed() as executed:
            if stage.shards is None:
                stage.run(project)
            else:
                stage.run(project, list(range(stage.shards(project))), lambda shard, summary: None)
        opened = watch.opened()
        media = {str(folder / row["uri"]) for row in world.rows} if stage.media else set()
        own = {str(path) for path in stage.outputs(project)} | {str(project.run / "metrics.json")}
        own |= {str(project.kb / "descriptions" / "manifest.json")}
        own |= {path for path in opened if Path(path).name.startswith("ledger.")}
        own |= {path for path in opened if Path(path).name == SEAL}  # checksums: no result comes of them
        if stage.folder:
            own |= {path for path in opened if path.startswith(f"{project.kb / stage.folder}/")}
        noted = {
            note.path
            for note in recorder.notes(own=lambda path, own=own: path in own)
            if Path(note.path).is_file() and Path(note.path).is_relative_to(root)
        }
        found[stage.name] = _Seen(opened - own, noted, media, executed)
    return found


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_notes_every_file_that_it_opens(stage: Stage, seen: dict[str, _Seen]) -> None:
    """What the kernel saw a stage open is what it noted; the samples' files apart, which ingest notes."""
    watched = seen[stage.name]
    assert watched.opened - watched.media <= watched.noted


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_opens_every_file_that_it_notes(stage: Stage, seen: dict[str, _Seen]) -> None:
    """Nothing counts that is not read; and who is said to open the samples' files opens some."""
    watched = seen[stage.name]
    assert watched.noted <= watched.opened
    assert bool(watched.media) == bool(watched.media & watched.opened)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_code_of_a_stage_is_all_that_it_runs(stage: Stage, seen: dict[str, _Seen]) -> None:
    """Every file of our source that ran is in the stage's code, which is found by following imports."""
    executed = {path.relative_to(ROOT).as_posix() for path in seen[stage.name].executed}
    assert executed, "nothing was seen to run"
    code = {path.relative_to(ROOT).as_posix() for path in files(stage.run)}
    machinery = {f"{name.replace('.', '/')}.py" for name in MACHINERY}
    assert executed <= code | machinery | {"data/reads.py", "pipeline/project.py"}
