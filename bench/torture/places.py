"""Attacks by pipes, devices, links, files and folders in the place of the project's files."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.torture.ground import RUN, Ground
from bench.torture.trial import Trial

PLACES = (
    "..",
    ".",
    "run.lock",
    "stages",
    "stages/encode.json",
    "stages/train.reads.json",
    "kb",
    "kb/ledger.sqlite",
    "kb/ledger.sqlite-wal",
    "kb/ledger.lock",
    "kb/samples.parquet",
    "kb/descriptions/category",
    "kb/descriptions/category/part-00000.parquet",
    "kb/embeddings/encoders.json",
    "heads.safetensors",
    "metrics.json",
    "report.html",
)
COMMANDS = (("predict", "red0.png"), ("kb", "stats"), ("kb", "verify"), ("describe", "--dry-run"), ("train",))


def _other(path: Path) -> None:
    """A folder in place of a file, or a file in place of a folder."""
    if path.suffix:
        path.mkdir()
    else:
        path.write_text("in the way", encoding="utf-8")


def _link_to_pipe(path: Path) -> None:
    project = next(folder for folder in path.parents if (folder / "manifest.csv").exists())
    os.mkfifo(project / "pipe")
    path.symlink_to(project / "pipe")


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /dev/full": lambda path: path.symlink_to("/dev/full"),
    "a link to a pipe": _link_to_pipe,
    "the other kind": _other,
}


def odd_places(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Each place with each kind, in random order: one line names it; nothing else changes."""
    pairs = list(itertools.product(PLACES, KINDS))
    rng.shuffle(pairs)
    for place, kind in itertools.cycle(pairs):
        yield Trial(f"{place} is {kind}", strike(ground, place, kind, rng.choice(COMMANDS)))


def strike(ground: Ground, place: str, kind: str, command: tuple[str, ...]) -> str | None:
    """One trial: the problem found, or None."""
    folder = ground.copy(ground.finished, "odd")
    path = Path(os.path.normpath(folder / RUN / place))
    aside = folder.parent / "aside"
    if path.exists():
        path.rename(aside)
    KINDS[kind](path)
    for arguments in (("run",), command):
        done = ground.run(folder, *arguments, seconds=60)
        if problem := done.problem():
            return f"{' '.join(arguments)}: {problem}"
        if done.status != 1 or path.name not in done.error:
            return f"{' '.join(arguments)}: exit {done.status}, {done.error or done.err[-200:]!r}"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    if aside.exists():
        aside.rename(path)
    return ground.ends_well(folder)
