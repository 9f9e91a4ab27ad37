"""Damage files at rest, as a disk or a careless user might, and the attack that does so.

A bit is flipped in place, so that size, modification time and inode stay. Or the file is truncated, emptied,
deleted, replaced by a folder or a pipe, or exchanged for another valid file of its kind.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.torture.ground import RUN, Done, Ground
from bench.torture.trial import Trial

READERS = (
    ("predict", "red0.png", "green3.png", "--json"),
    ("retrieve", "something red", "--json"),
    ("kb", "stats"),
    ("kb", "nearest", "a red thing"),
    ("evaluate",),
)
# Files that cannot be made again: the ledger holds answers that were paid for.
NOT_REMADE = frozenset({"ledger.sqlite"})
ASKS_FOR_IT = re.compile("[Rr]estore it from a backup|move it away")  # the advice of the error message
# Lock files are empty; SQLite removes its own files beside the ledger when it is closed.
_NOTHING = re.compile(r"(run|ledger)\.lock|.*-(wal|shm)|\..*")
_NUMBERS = re.compile(r"\d+|[0-9a-f]{8,}")


@dataclass(frozen=True)
class Wound:
    """A damage: `flip`, `cut`, `empty`, `gone`, `folder`, `pipe` or `swap`."""

    name: str
    place: float = 0.5  # of a flip or a cut: its position, from 0 (the first byte) to 1 (the last)
    bit: int = 2  # of a flip
    other: Path | None = None  # of a swap: a file of the same kind

    def inflict(self, path: Path) -> None:
        """Apply it to a file, keeping its times if it stays a file."""
        before = path.stat()
        if self.name == "gone":
            path.unlink()
        elif self.name in {"folder", "pipe"}:
            path.unlink()
            path.mkdir() if self.name == "folder" else os.mkfifo(path)
        elif self.name == "swap":
            assert self.other is not None
            mine, theirs = path.read_bytes(), self.other.read_bytes()
            _overwrite(path, theirs, before)
            _overwrite(self.other, mine, self.other.stat())
        elif self.name == "cut":
            _overwrite(path, path.read_bytes()[: int(self.place * (before.st_size - 1))], before)
        elif self.name == "empty":
            _overwrite(path, b"", before)
        else:
            flip(path, int(self.place * (before.st_size - 1)), self.bit)

    def __str__(self) -> str:
        if self.other is not None:
            return f"swap with {self.other.name}"
        return f"{self.name} {self.place:.3f}" if self.name in {"flip", "cut"} else self.name


def flip(path: Path, place: int, bit: int = 2) -> None:
    """Flip one bit of a file in place, keeping its size, inode and modification time."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def wounds(path: Path, run: Path, *, places: int = 5) -> Iterator[Wound]:
    """The damages of a file of a run, without swaps: flips at evenly spaced positions, and the rest."""
    if path.stat().st_size:
        for number in range(places):
            yield Wound("flip", number / max(1, places - 1))
        yield Wound("cut")
        yield Wound("empty")
    for name in ("gone", "folder", "pipe"):
        yield Wound(name)
    if (other := twin(path, run)) is not None:
        yield Wound("swap", other=other)


def is_note(wound: Wound, path: Path) -> bool:
    """Whether `kb verify` only notes this damage: a stage without a mark may have been interrupted."""
    mark = path.parent.name == "stages" and not path.name.endswith(".reads.json")
    return mark and wound.name == "gone"


def twin(path: Path, run: Path) -> Path | None:
    """The nearest other file of the run with the same suffix and other content; None without one."""
    mine, content = _ending(path), path.read_bytes()
    others = [each for each in files(run) if _ending(each) == mine and each.read_bytes() != content]
    return max(others, key=lambda each: len(Path(os.path.commonpath([each, path])).parts), default=None)


def _ending(path: Path) -> str:
    return ".reads.json" if path.name.endswith(".reads.json") else path.suffix


def files(run: Path) -> list[Path]:
    """The files of a finished run, without locks and SQLite's temporary files."""
    found = (path for path in sorted(run.rglob("*")) if path.is_file())
    return [path for path in found if not _NOTHING.fullmatch(path.name)]


def kinds(run: Path) -> dict[str, Path]:
    """The first file of every kind in a finished run, by its name without numbers and hashes."""
    found: dict[str, Path] = {}
    for path in files(run):
        found.setdefault(_NUMBERS.sub("N", path.relative_to(run).as_posix()), path)
    return found


def restore(run: Path, whole: Path) -> None:
    """Restore a run from its copy `whole`."""
    shutil.rmtree(run)
    shutil.copytree(whole, run, symlinks=True)


def strike_files(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Damage a random file of the run: `kb verify` names it, no reader uses it, `run` repairs it.

    A reader must refuse in one line, or print what it printed before; anything else counts as silent.
    """
    before = {arguments: ground.run(ground.finished, *arguments) for arguments in READERS}
    while True:
        folder = ground.copy(ground.finished, "wounded")
        path = rng.choice(files(folder / RUN))
        wound = _draw(rng, path, folder / RUN)
        what = f"{path.relative_to(folder / RUN)}: {wound}"
        wound.inflict(path)
        struck = [path] if wound.other is None else [path, wound.other]
        arguments = rng.choice(READERS)
        problem = (
            _unnamed(ground.run(folder, "kb", "verify"), struck, status=0 if is_note(wound, path) else 1)
            or believed(ground.run(folder, *arguments), before[arguments], arguments)
            or _unhealed(ground, folder, struck)
        )
        yield Trial(what, problem)


def _draw(rng: random.Random, path: Path, run: Path) -> Wound:
    name = rng.choice(("flip", "flip", "flip", "cut", "empty", "gone", "folder", "pipe", "swap"))
    other = twin(path, run) if name == "swap" else None
    if (name == "swap" and other is None) or (name != "flip" and not path.stat().st_size):
        name = "gone"
    return Wound(name, rng.random(), rng.randrange(8), other)


def _unnamed(done: Done, struck: list[Path], *, status: int) -> str | None:
    """What is wrong with the findings that `kb verify` prints for damaged files; None if they are right."""
    if done.status != status:
        return f"kb verify: {done.problem() or f'ends with {done.status}'}"
    if "Traceback" in done.err:
        return f"kb verify: {done.problem()}"
    output = done.out + done.err
    missing = [path.name for path in struck if path.name not in output]
    return f"kb verify does not name {', '.join(missing)}: {output[-300:]}" if missing else None


def believed(done: Done, before: Done, arguments: tuple[str, ...]) -> str | None:
    """What a command did wrong with a damaged file: another result, or an unclear error; else None."""
    if problem := done.problem():
        return f"{arguments[0]}: {problem}"
    same = done.status != 0 or done.out == before.out or _predicts_the_same(done.out, before.out)
    return None if same else f"{arguments[0]}: another result, and no word: {done.out[-300:]}"


def _predicts_the_same(now: str, before: str) -> bool:
    """Whether predictions in JSON are the same but for probabilities that are missing with a reason.

    Probabilities need an evaluation of the present files; without it they are null.
    """
    try:
        found, expected = json.loads(now)["predictions"], json.loads(before)["predictions"]
    except (ValueError, KeyError, TypeError):
        return False
    for one, other in zip(found, expected, strict=True):
        if one["no_probability"] is not None:
            for each in (one, other):
                each["no_probability"] = None
                each["answers"] = [{**answer, "probability": None} for answer in each["answers"]]
    return bool(found == expected)


def _unhealed(ground: Ground, folder: Path, struck: list[Path]) -> str | None:
    """What differs after `unibind run`, or after following the advice of its error; None if nothing."""
    done = ground.run(folder, "run")
    if problem := done.problem():
        return f"run: {problem}"
    if any(path.name in NOT_REMADE for path in struck):
        if done.status != 0:
            return None if ASKS_FOR_IT.search(done.error) else f"run: {done.error}"
        wrong = [name for name in ground.differences(folder) if name != "ledger"]
        return f"after `run`: {', '.join(wrong)}" if wrong else None
    if done.status != 0:
        named = [path for path in struck if path.name in done.error]
        if not named or not re.search("delete it|move it away", done.error):
            return f"run: {done.error}"
        for path in named:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return ground.ends_well(folder)


def _overwrite(path: Path, content: bytes, times: os.stat_result) -> None:
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
