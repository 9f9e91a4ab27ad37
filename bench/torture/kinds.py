"""Mutants of the project's own files and of the user's lists: read, or refused by name."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.torture.ground import RUN, Ground
from bench.torture.models import Kind
from bench.torture.models import kinds as model_kinds
from bench.torture.mutate import mutant
from bench.torture.readers import BUDGET
from bench.torture.readers import attack as attack_readers
from bench.torture.seeds import formats
from bench.torture.trial import Trial
from data.errors import UniBindError
from data.manifest.categories import read_categories
from data.manifest.read import read_manifest
from data.readers import use_budget
from kb_builder.ask.endpoint.status import check_body
from kb_builder.ask.ledger import iter_entries
from kb_builder.parse.answers import parse_answer, read_answer
from kb_builder.store.table import read_vectors
from kb_builder.tables.parts import read_manifest as read_parts
from pipeline.project import load_project
from pipeline.run.stale import why_stale


def media(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Mutants of every media format, as bench.torture.readers makes them."""
    use_budget(BUDGET)
    folder = ground.root / "media"
    folder.mkdir(exist_ok=True)
    all_formats = list(formats())
    while True:
        seed = rng.randrange(2**31)
        rng.shuffle(all_formats)
        for each in all_formats:
            tally = attack_readers(each, count=8, seed=seed, folder=folder)
            for line in tally.foreign:
                yield Trial(f"{each.modality} {each.ending}", line[:300])
            for _ in range(8 - len(tally.foreign)):
                yield Trial(f"{each.modality} {each.ending}")


def files(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Mutants of manifests, category lists, project files, answers, shards, heads, marks, ledgers."""
    folder = ground.root / "mutants"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ground.finished, folder)
    every = [*model_kinds(), *_kinds(ground, folder)]
    number = 0
    seed = rng.randrange(2**31)
    while True:
        for kind in every:
            for _ in range(10):
                number += 1
                yield Trial(
                    f"{kind.name}, mutant {number} of seed {seed}", _strike(kind, folder, seed, number)
                )
            (folder / kind.name).write_bytes(kind.contents[0])


def _strike(kind: Kind, folder: Path, seed: int, number: int) -> str | None:
    path = folder / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutant(kind.contents, seed=seed, number=number))
    try:
        kind.load(folder)
    except UniBindError as error:
        words = str(error)
        # A list of mistakes has one line for each; every other refusal is one line. All name the file.
        named = path.name in words or path.parent.name in words
        return None if named else f"the refusal does not name the file: {words[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def _kinds(ground: Ground, folder: Path) -> Iterator[Kind]:
    manifest = (ground.fresh / "manifest.csv").read_bytes()
    rows = [line.split(",") for line in manifest.decode().splitlines()]
    lines = "\n".join(json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:])
    samples = (ground.finished / RUN / "kb" / "samples.parquet").read_bytes()
    for name, content in (
        ("listed.csv", manifest),
        ("listed.tsv", manifest.replace(b",", b"\t")),
        ("listed.jsonl", lines.encode()),
        ("listed.parquet", samples),
    ):
        yield Kind(name, (content,), lambda folder, name=name: read_manifest(folder / name))  # type: ignore[misc]
    names = b"name,category_id,aliases\nred,r,crimson|scarlet\ngreen,g,\nblue,b,azure\n"
    yield Kind("categories.csv", (names,), lambda folder: read_categories(folder / "categories.csv"))
    project = (ground.fresh / "unibind.toml").read_bytes()
    yield Kind("other.toml", (project,), lambda folder: load_project(folder / "other.toml"))
    answers = tuple(
        entry.answer.encode() for entry in list(iter_entries(ground.finished / RUN / "kb")) if entry.answer
    )
    yield Kind("answer.json", answers, lambda folder: _parse(folder / "answer.json"))
    store = next((ground.finished / RUN / "kb" / "embeddings").glob("minilm*/category_texts"))
    for path in sorted(store.iterdir()):
        name = str(path.relative_to(ground.finished))
        yield _kept(
            ground, name, lambda folder, at=store: read_vectors(folder / at.relative_to(ground.finished))
        )  # type: ignore[misc]
    kb = RUN / "kb"
    yield _kept(ground, f"{kb}/descriptions/manifest.json", lambda folder: read_parts(folder / kb))
    yield _kept(ground, f"{kb}/ledger.sqlite", lambda folder: list(iter_entries(folder / kb)))
    for stage in ("ingest", "encode", "train"):
        for ending in ("json", "reads.json"):
            name = f"{RUN}/stages/{stage}.{ending}"
            yield _kept(ground, name, lambda folder, stage=stage: _stale(folder, stage))  # type: ignore[misc]


def _kept(ground: Ground, name: str, load: Callable[[Path], Any]) -> Kind:
    return Kind(name, ((ground.finished / name).read_bytes(),), load)


def _stale(folder: Path, stage: str) -> None:
    why_stale(load_project(folder / "unibind.toml"), stage)


def _parse(path: Path) -> None:
    """As the client: a body that is not an answer is refused before it is stored."""
    raw = path.read_bytes()
    body = raw.decode("utf-8", errors="replace")
    check_body(body, where=path.name)
    parse_answer(read_answer(body), several=len(raw) % 2 == 0)
