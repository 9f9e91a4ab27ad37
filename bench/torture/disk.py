"""Attacks by full or read-only disks, process limits, and folders that are removed while written.

A small disk is a tmpfs where this process may mount one (it needs root), else a limit on the size of files.
"""

from __future__ import annotations

import ctypes
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
from typing import Any

from bench.torture.ground import RUN, Done, Ground, false_lines, sound_ledger
from bench.torture.trial import Trial
from bench.torture.wounds import READERS, believed, files

KB = 1024
MB = 1024 * KB
_ANOTHER = 65_534  # the uid of the user `nobody` on nearly every system; its name is not looked up
_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER = 1, 2, 3  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24  # linux/prctl.h


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
        if problem := done.problem() or sound_ledger(folder / RUN) or false_lines(folder / RUN):
            return problem
    how = ["mount", "-o", "remount,size=64m", str(folder / "runs")]
    subprocess.run(how, check=True, capture_output=True)
    return ground.ends_well(folder)


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
    return done.problem() or false_lines(folder / RUN) or ground.ends_well(folder)


def read_only(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Make a folder read-only: commands that only read work, others fail with one line.

    It is mounted read-only, or belongs to another user; in the latter case one file may be unreadable as
    well.
    """
    ways = [_as_another_user, _unreadable] if os.geteuid() == 0 else [_locked_by_mode]
    if may_mount(ground.root):
        ways.append(_locked_by_mount)
    while True:
        folder = ground.copy(ground.finished, "readonly")
        stage = rng.choice(("describe-categories", "encode", "localize", "train", "evaluate", "report"))
        (folder / RUN / "stages" / f"{stage}.json").unlink()
        way = rng.choice(ways)
        problem = way(ground, folder, rng)
        yield Trial(f"{WAYS[way.__name__]}, {stage} to be run", problem or ground.ends_well(folder))


WAYS = {
    "_as_another_user": "a folder of another user",
    "_unreadable": "a file that another user alone may read",
    "_locked_by_mode": "a folder without leave to write",
    "_locked_by_mount": "a read-only mount",
}


def _locked_by_mount(ground: Ground, folder: Path, rng: random.Random) -> str | None:
    runs = str(folder / "runs")
    with mounted(folder / "runs", "--bind", runs):
        subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True, capture_output=True)
        return _refused(ground, folder)


def _locked_by_mode(ground: Ground, folder: Path, rng: random.Random) -> str | None:
    places = [folder / RUN, *(path for path in (folder / RUN).rglob("*") if path.is_dir())]
    for path in places:
        path.chmod(0o555)
    try:
        return _refused(ground, folder)
    finally:
        for path in places:
            path.chmod(0o755)


def give_up_power() -> None:
    """Make file modes apply to this process, which runs as root, and to its children.

    Another user id would not do: the interpreter may be installed where only root can go.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    power = 1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH | 1 << _FOWNER
    for each in (_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER):
        if libc.prctl(_PR_CAPBSET_DROP, each, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the lower 32 bits, then the upper
    if libc.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    for place in range(3):
        held[place] &= ~power
    if libc.capset(header, held):
        raise OSError(ctypes.get_errno(), "capset")


def _give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _ANOTHER, _ANOTHER, follow_symlinks=False)


def _as_another_user(ground: Ground, folder: Path, rng: random.Random) -> str | None:
    _give_away(folder)
    return _refused(ground, folder, before=give_up_power)


def _unreadable(ground: Ground, folder: Path, rng: random.Random) -> str | None:
    _give_away(folder)
    marks = {path.name.removesuffix(".json") for path in (folder / RUN / "stages").iterdir()}
    # A record of what was read is of no use to anyone where its stage has no mark.
    path = rng.choice(
        [
            each
            for each in files(folder / RUN)
            if each.name.removesuffix(".reads.json") in marks or not each.name.endswith(".reads.json")
        ]
    )
    path.chmod(0o600)
    try:
        for arguments in rng.sample(READERS, 2):
            before = ground.run(ground.finished, *arguments)
            done = ground.run(folder, *arguments, before=give_up_power)
            if problem := believed(done, before, arguments):
                return f"{path.name}: {problem}"
            if "delete it" in done.error:
                return f"{path.name}: {arguments[0]} advises to delete it: {done.error}"
        found = ground.run(folder, "kb", "verify", before=give_up_power)
        if found.status != 1 or path.name not in found.out + found.err or "Traceback" in found.err:
            return f"{path.name}: kb verify: {(found.out + found.err)[-300:]}"
        done = ground.run(folder, "run", before=give_up_power)
        return _no_run(done)
    finally:
        path.chmod(0o644)


def _refused(ground: Ground, folder: Path, **how: Any) -> str | None:
    for arguments in (("predict", "red0.png"), ("kb", "stats"), ("kb", "verify")):
        done = ground.run(folder, *arguments, **how)
        if done.status != 0:
            return f"{' '.join(arguments)} only reads: {done.error or done.out[-300:] or done.problem()}"
    return _no_run(ground.run(folder, "run", **how))


def _no_run(done: Done) -> str | None:
    if done.status == 0:
        return "run says that all is well though nothing can be written"
    return done.problem()


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
        yield Trial(f"{part} removed after {wait:.1f} s", problem or ground.ends_well(folder))
