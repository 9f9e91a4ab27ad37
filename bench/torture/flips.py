"""Attacks on files at rest: one flipped bit, with times and inode kept, and damage of whole files."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
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


def flips(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Damage a random file of the run: `kb verify` names it, no reader uses it, `run` repairs it.

    A reader must refuse in one line, or print what it printed before; anything else counts as silent.
    """
    before = {arguments: ground.run(ground.finished, *arguments).out for arguments in READERS}
    while True:
        folder = ground.copy(ground.finished, "flipped")
        files = [
            path for path in sorted((folder / RUN).rglob("*")) if path.is_file() and path.suffix != ".lock"
        ]
        path = rng.choice(files)
        name = path.relative_to(folder / RUN)
        damage = rng.choice((flip, flip, flip, cut, empty))
        what = f"{name}: {damage(path, rng)}"
        found = ground.run(folder, "kb", "verify")
        problem = found.problem()
        if problem is None and (found.status == 0 or path.name not in found.out + found.err):
            problem = "kb verify does not name it"
        arguments = rng.choice(READERS)
        done = ground.run(folder, *arguments)
        problem = problem or _believed(done, before[arguments], arguments)
        done = ground.run(folder, "run")
        if path.name != "ledger.sqlite":  # which cannot be restored
            if done.status != 0:
                problem = problem or f"run: {done.problem() or done.error}"
            elif differences := ground.differences(folder):
                problem = problem or f"after `run`: {', '.join(differences)}"
        yield Trial(what, problem)


def _believed(done: Done, before: str, arguments: tuple[str, ...]) -> str | None:
    if done.problem():
        return f"{arguments[0]}: {done.problem()}"
    return f"{arguments[0]}: another result, and no word" if done.status == 0 and done.out != before else None


def _kept(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change a file's content in place, keeping its times."""
    about = path.stat()
    content = bytearray(path.read_bytes())
    change(content)
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit."""
    if not path.stat().st_size:
        return empty(path, rng)
    at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)

    def change(content: bytearray) -> None:
        content[at] ^= 1 << bit

    _kept(path, change)
    return f"bit {bit} of byte {at:,} flipped"


def cut(path: Path, rng: random.Random) -> str:
    """Truncate the file."""
    at = rng.randrange(max(1, path.stat().st_size))

    def change(content: bytearray) -> None:
        del content[at:]

    _kept(path, change)
    return f"cut after {at:,} bytes"


def empty(path: Path, rng: random.Random) -> str:
    """Empty the file."""
    _kept(path, bytearray.clear)
    return "emptied"
