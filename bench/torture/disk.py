"""Attacks by full or read-only disks, process limits, and folders that are removed while written.

A small disk is a tmpfs where this process may mount one (it needs root), else a limit on the size of files.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.torture.ground import RUN, Ground, sound_ledger
from bench.torture.trial import Trial

KB = 1024
MB = 1024 * KB


@contextmanager
def mounted(target: Path, *how: str) -> Iterator[None]:
    """Mount a file system at a folder. Raises CalledProcessError where that is not allowed."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *how, str(target)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True, capture_output=True)


def may_mount(folder: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    try:
        with mounted(folder / "probe", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full_disks(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Fill the disk at a random point, then enlarge it: one line, a sound ledger, the same results."""
    if not may_mount(ground.root):
        yield from _limited(ground, rng)
        return
    while True:
        # A run writes about 3 MB; the ledger and its log are 100 to 200 kB.
        size = rng.choice((rng.randint(8, 256), rng.randint(100, 1200), rng.randint(1000, 3000))) * KB
        folder = ground.copy(ground.fresh, "full")
        with mounted(folder / "runs", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            yield Trial(f"a tmpfs of {size // KB} kB fills up and grows", _fill(ground, folder, rng))


def _fill(ground: Ground, folder: Path, rng: random.Random) -> str | None:
    for _ in range(rng.choice((1, 1, 2))):
        done = ground.run(folder, "run")
        if problem := done.problem() or sound_ledger(folder / RUN):
            return problem
    how = ["mount", "-o", "remount,size=64m", str(folder / "runs")]
    subprocess.run(how, check=True, capture_output=True)
    return _ends_well(ground, folder)


def _ends_well(ground: Ground, folder: Path) -> str | None:
    """Run to the end and compare; None where everything equals the undisturbed run."""
    if problem := sound_ledger(folder / RUN):
        return problem
    done = ground.run(folder, "run")
    if done.status != 0:
        return f"afterwards: {done.problem() or done.error}"
    if differences := ground.differences(folder):
        return f"ends otherwise: {', '.join(differences)}"
    return sound_ledger(folder / RUN)


def _limited(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    while True:
        size = rng.randint(1, 1500) * KB
        yield Trial(f"files of {size // KB} kB at most", _with_limit(ground, resource.RLIMIT_FSIZE, size))


def limits(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Limit file sizes, open files and memory at random: one line, and the same results without limits."""
    while True:
        name, kind, limit, unit = rng.choice(
            (
                ("files of", resource.RLIMIT_FSIZE, rng.randint(1, 1500) * KB, "bytes"),
                ("open files:", resource.RLIMIT_NOFILE, rng.randint(8, 64), ""),
                ("memory:", resource.RLIMIT_AS, rng.randint(200, 6000) * MB, "bytes"),
            )
        )
        yield Trial(f"{name} {limit:,} {unit}", _with_limit(ground, kind, limit))


def _with_limit(ground: Ground, kind: int, limit: int) -> str | None:
    folder = ground.copy(ground.fresh, "limited")
    done = ground.run(folder, "run", before=partial(resource.setrlimit, kind, (limit, limit)))
    return done.problem() or _ends_well(ground, folder)


def read_only(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Make a folder read-only: commands that only read work, others fail with one line."""
    mounts = may_mount(ground.root)
    while True:
        folder = ground.copy(ground.finished, "readonly")
        stage = rng.choice(("describe-categories", "encode", "localize", "train", "evaluate", "report"))
        (folder / RUN / "stages" / f"{stage}.json").unlink()
        lock = _locked_by_mount if mounts else _locked_by_mode
        problem = lock(ground, folder)
        yield Trial(f"read-only, {stage} to be run", problem or _ends_well(ground, folder))


def _locked_by_mount(ground: Ground, folder: Path) -> str | None:
    runs = str(folder / "runs")
    with mounted(folder / "runs", "--bind", runs):
        subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True, capture_output=True)
        return _refused(ground, folder)


def _locked_by_mode(ground: Ground, folder: Path) -> str | None:
    places = [folder / RUN, *(path for path in (folder / RUN).rglob("*") if path.is_dir())]
    for path in places:
        path.chmod(0o555)
    try:
        return None if os.geteuid() == 0 else _refused(ground, folder)  # file modes do not stop root
    finally:
        for path in places:
            path.chmod(0o755)


def _refused(ground: Ground, folder: Path) -> str | None:
    for arguments in (("predict", "red0.png"), ("kb", "stats"), ("kb", "verify")):
        done = ground.run(folder, *arguments)
        if done.status != 0:
            return f"{' '.join(arguments)} only reads: {done.problem() or done.error}"
    done = ground.run(folder, "run")
    if done.problem():
        return done.problem()
    return None if done.status == 1 else f"run ends with {done.status} though nothing can be written"


def removals(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Remove the run's folder, or a part of it, while it is written: no result is a mixture of two runs."""
    while True:
        folder = ground.copy(ground.fresh, "removed")
        part = rng.choice((RUN.parent, RUN, RUN / "kb", RUN / "stages"))
        wait = rng.uniform(0.2, ground.seconds)
        running = ground.start(folder, "run")
        time.sleep(wait)
        shutil.rmtree(folder / part, ignore_errors=True)
        done = running.wait()
        problem = done.problem()
        yield Trial(f"{part} removed after {wait:.1f} s", problem or _ends_well(ground, folder))
