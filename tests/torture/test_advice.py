"""Damage, the message, the command that it advises, and the first command again: all as a user runs them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.torture.ground import RUN, Done, Ground

RESTORED = "Restore it from a backup"

# Commands, and what of a run is read for their results.
COMMANDS = {
    "predict": ("predict", "red0.png", "--json"),
    "retrieve": ("retrieve", "something red", "--json"),
    "evaluate": ("evaluate",),
    "compare": ("compare", str(RUN), "other", "--json"),
    "stats": ("kb", "stats"),
    "nearest": ("kb", "nearest", "a red thing"),
    "explain": ("kb", "explain", "ROW"),
    "verify": ("kb", "verify"),
}
READ_BY = {
    "predict": ("heads.safetensors", "kb/centers.parquet", "kb/categories.parquet"),
    "retrieve": ("kb/embeddings/encoders.json", "kb/embeddings/efficientnet-*/samples/part-*.parquet"),
    "evaluate": ("kb/controls.parquet", "kb/samples.parquet", "kb/embeddings/*/controls/manifest.json"),
    "compare": ("metrics.json", "named.parquet", "ranks.parquet"),
    "stats": ("kb/samples.parquet", "kb/descriptions/category/part-*.parquet"),
    "nearest": ("kb/embeddings/*/category_texts/part-*.parquet", "kb/embeddings/*/encoder.json"),
    "explain": ("kb/descriptions/category/part-*.parquet", "kb/ledger.sqlite"),
    "verify": (
        *("report.html", "evaluation.json", "train_log.parquet", "unibind-checksums.json"),
        *("stages/train.json", "stages/encode.reads.json", "kb/unibind-checksums.json"),
        *("kb/descriptions/manifest.json", "kb/modalities.parquet"),
    ),
}
CASES = [(command, pattern) for command, patterns in READ_BY.items() for pattern in patterns]
QUICK = ["heads.safetensors", "named.parquet", "kb/ledger.sqlite", "kb/unibind-checksums.json"]
ADVICE = re.compile(r"`unibind ([^`]+)`")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flip": _flip,
    "cut": _cut,
    "empty": _empty,
    "gone": Path.unlink,
    "folder": _folder,
}


@pytest.fixture(scope="module")
def answers(ground: Ground) -> dict[str, str]:
    """What each command prints of the whole run."""
    folder = _copy(ground)
    return {name: _whole(_ask(ground, folder, name)) for name in COMMANDS}


def _copy(ground: Ground) -> Path:
    """The finished project, with a second run to be compared with."""
    folder = ground.copy(ground.finished, "advised")
    shutil.copytree(folder / RUN, folder / "other")
    return folder


def _ask(ground: Ground, folder: Path, name: str) -> Done:
    rows = pq.read_table(ground.finished / RUN / "kb/descriptions/category/part-00000.parquet")
    row = rows["row_id"][0].as_py()
    return ground.run(folder, *(row if each == "ROW" else each for each in COMMANDS[name]))


def _whole(done: Done) -> str:
    assert done.status == 0, done.err or done.out
    return done.out


def _follow(ground: Ground, folder: Path, path: Path, told: str) -> None:
    """Do what a message says: delete the file, restore it, run the command that it names."""
    if RESTORED in told:
        shutil.copy2(ground.finished / path.relative_to(folder), path)
        return
    if "delete it" in told or "move it away" in told:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    advised = ADVICE.search(told)
    if advised is None:
        assert "run again" in told, told
        return
    _whole(ground.run(folder, *advised[1].split()))


def _heals(ground: Ground, answers: dict[str, str], command: str, pattern: str, damage: str) -> None:
    folder = _copy(ground)
    path = next(iter(sorted((folder / RUN).glob(pattern))))
    DAMAGES[damage](path)
    done = _ask(ground, folder, command)
    assert command == "verify" or done.problem() is None  # it prints what it finds
    assert done.status == 1, f"{command} says nothing of {pattern}"
    told = done.error or done.out[done.out.index("error:") :]
    assert path.name in told, told
    _follow(ground, folder, path, told)
    now = _whole(_ask(ground, folder, command))
    assert command in {"evaluate", "verify"} or now == answers[command]


@pytest.mark.parametrize(("command", "pattern"), [case for case in CASES if case[1] in QUICK])
def test_the_advised_command_works(
    ground: Ground, answers: dict[str, str], command: str, pattern: str
) -> None:
    """One bit: refused with the file's name; what the message advises is done, and the command works."""
    _heals(ground, answers, command, pattern, "flip")


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("command", "pattern"), CASES)
def test_every_advised_command_works(
    ground: Ground, answers: dict[str, str], command: str, pattern: str, damage: str
) -> None:
    """The same for every kind of file that a result is read from, and every kind of damage."""
    _heals(ground, answers, command, pattern, damage)
