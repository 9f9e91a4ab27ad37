"""Attacks on ledgers: full disks, concurrent readers and kills; they stay sound and lose nothing."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path

from bench.torture.disk import KB, may_mount, mounted
from bench.torture.ground import Ground
from bench.torture.trial import Trial
from data.errors import KnowledgeBaseError
from kb_builder.ask.ledger import iter_entries, new_entry, open_ledger

_context = multiprocessing.get_context("forkserver")
_GROUP = 20  # entries per group
_HANGS_S = 60.0


def ledgers(ground: Ground, rng: random.Random) -> Iterator[Trial]:
    """Acknowledged entries are kept, `PRAGMA integrity_check` is ok, and writing resumes with free space."""
    mounts = may_mount(ground.root)
    number = 0
    while True:
        number += 1
        size = rng.choice((rng.randint(16, 200), rng.randint(100, 1200), 1024)) * KB
        killed = rng.random() < 0.3
        beside = rng.random() < 0.5
        folder = ground.root / f"ledger-{number}"
        what = f"{'a tmpfs' if mounts else 'files'} of {size // KB} kB"
        what += (", killed" if killed else "") + (", read meanwhile" if beside else "")
        how = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        with mounted(folder, *how) if mounts else nullcontext():
            folder.mkdir(exist_ok=True)
            yield Trial(what, _fill(folder, rng, size=size, killed=killed, beside=beside, mounts=mounts))


def _fill(
    folder: Path, rng: random.Random, *, size: int, killed: bool, beside: bool, mounts: bool
) -> str | None:
    acknowledged = folder.parent / f"{folder.name}.acknowledged"
    acknowledged.touch()
    seed = rng.randrange(2**31)
    reader = _context.Process(target=_read, args=(folder,)) if beside else None
    if reader is not None:
        reader.start()
    try:
        for rounds in range(2):  # the second starts on a full disk
            writer = _context.Process(
                target=_write, args=(folder, acknowledged, seed + rounds, None, 0 if mounts else size)
            )
            writer.start()
            if killed and rounds == 0:
                time.sleep(rng.uniform(0, 0.4))
                writer.kill()
            writer.join(_HANGS_S)
            if writer.is_alive():
                writer.kill()
                return "the writer hangs"
            if writer.exitcode not in {0, -9}:
                return f"the writer ends with {writer.exitcode}"
            if problem := _damage(folder, acknowledged):
                return problem
        if mounts:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True, capture_output=True)
        writer = _context.Process(target=_write, args=(folder, acknowledged, seed + 2, 10, 0))
        writer.start()
        writer.join(_HANGS_S)
        if writer.exitcode != 0:
            return f"with room again, the writer ends with {writer.exitcode}"
        return _damage(folder, acknowledged)
    finally:
        if reader is not None:
            reader.kill()
            reader.join()


def _damage(folder: Path, acknowledged: Path) -> str | None:
    path = folder / "ledger.sqlite"
    keys = set(acknowledged.read_text("utf-8").split())
    if not path.is_file():
        return "the ledger is gone" if keys else None
    try:
        with closing(sqlite3.connect(path, timeout=30)) as ledger:
            found = ledger.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                return f"integrity_check: {found}"
            tables = ledger.execute("SELECT count(*) FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
            held = {key for (key,) in ledger.execute("SELECT key FROM entries")} if tables else set()
    except sqlite3.Error as error:
        return str(error) if "full" not in str(error) and "I/O" not in str(error) else None
    lost = keys - held
    return f"{len(lost)} acknowledged answers are lost" if lost else None


def _write(folder: Path, acknowledged: Path, seed: int, groups: int | None, limit: int) -> None:
    """Record groups until the disk is full, or `groups`; acknowledged keys go to the file `acknowledged`."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = random.Random(seed)

    async def write() -> None:
        with acknowledged.open("a", encoding="utf-8") as file:
            async with open_ledger(folder) as ledger:
                number = 0
                while groups is None or number < groups:
                    number += 1
                    some = [
                        new_entry(
                            f'{{"seed":{seed},"number":{number},"item":{item}}}',
                            provider="p",
                            source="s",
                            run_id="r",
                            attempts=1,
                            latency_ms=1.0,
                            answer=rng.randbytes(rng.randint(10, 4000)).hex(),
                        )
                        for item in range(_GROUP)
                    ]
                    futures = [ledger.submit(entry) for entry in some]
                    ledger.flush()
                    await asyncio.gather(*futures)
                    file.write("".join(f"{entry.key}\n" for entry in some))
                    file.flush()

    try:
        asyncio.run(write())
    except (KnowledgeBaseError, OSError) as error:
        # Only a full disk may end this.
        os._exit(0 if "\n" not in str(error) and groups is None else 3)
    os._exit(0)


def _read(folder: Path) -> None:
    while True:
        with suppress(KnowledgeBaseError, OSError):
            for _ in iter_entries(folder):
                pass
        time.sleep(0.01)
