"""A small project that is run once undisturbed, and commands on copies of it, killed if they hang.

Commands run in separate processes, forked from one that has the libraries loaded: they start in a tenth of a
second, not in seven. They are the real commands: `pipeline.cli.main.main`, its exit status and its output.
"""

from __future__ import annotations

import asyncio
import csv
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from data.errors import DamagedError
from data.seals import Sum, differs, sealed
from kb_builder.fake_openai import FakeSettings, serve_fake

NAME = "small"
RUN = Path("runs") / NAME
VOLATILE = ("created_at", "latency_ms", "attempts")
HANGS_S = 180.0  # a command that runs longer counts as hanging
_LOADED = ["pipeline.cli.main", "pipeline.table", "kb_builder.encode.embed", "kb_builder.describe.samples"]
_LOADED += [
    "trainer.align.train",
    "trainer.evaluate.measure",
    "pipeline.report.page",
    "pipeline.predict.recognise",
    "pipeline.predict.zero_shot",
    "kb_builder.verify.verify",
]
_LOADED += ["torch", "torch._dynamo", "pyarrow.parquet", "duckdb", "safetensors.torch"]
_LOADED += ["matplotlib.figure", "matplotlib.backends.backend_agg", "bench.ready"]
_PROJECT = """\
name = "{name}"
seed = 3
[data]
manifest = "manifest.csv"
[describe.categories]
describer = "{describer}"
n = 4
[describe.samples]
describer = "facts"
[localize]
k = 3
[train]
epochs = 3
[evaluate]
bootstrap = 50
few_shot = []
repeats = 0
"""
_OPENAI = 'openai"\nmodel = "m"\nbase_url = "{url}"\napi_key_env = "UNIBIND_NONE'


def make_project(folder: Path, url: str | None = None) -> Path:
    """Images and texts of three colours, described by the server at `url`, or by the fake describer."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for place, colour in enumerate(("red", "green", "blue")):
        shade = np.full(3, 30)
        shade[place] = 200
        for number, split in enumerate(("train", "train", "val", "test")):
            for modality, ending in (("image", "png"), ("text", "txt")):
                uri = f"{colour}{number}.{ending}"
                if modality == "image":
                    pixels = (shade + rng.integers(-30, 30, (48, 48, 3))).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / uri)
                else:
                    (folder / uri).write_text(f"something {colour}, number {number}", encoding="utf-8")
                rows.append(
                    {
                        "sample_id": f"{colour}{number}-{modality}",
                        "object_id": f"{colour}{number}",
                        "uri": uri,
                        "modality": modality,
                        "category": colour,
                        "split": split,
                    }
                )
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    describer = "fake" if url is None else _OPENAI.format(url=url)
    (folder / "unibind.toml").write_text(_PROJECT.format(name=NAME, describer=describer), encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit status (negative: by a signal; None: it hung and was killed)."""

    status: int | None
    out: str
    err: str

    def problem(self) -> str | None:
        """What no command may ever do; None where it succeeded or failed with one clear line."""
        if self.status is None:
            return "hangs"
        if "Traceback (most recent call last)" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1]}"
        if self.status < 0:
            return f"killed by signal {-self.status}"
        if self.status != 0 and not self.error:
            return f"ends with {self.status} without a word: {self.err[-200:]!r}"
        return None

    @property
    def error(self) -> str:
        """The error line."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        return lines[-1] if lines else ""


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LOADED)


@dataclass
class Running:
    """A running command; `wait` for it, or `kill` it."""

    process: Any
    streams: Path

    def kill(self) -> None:
        """Send SIGKILL to it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, seconds: float = HANGS_S) -> Done:
        """Wait for its end; kill it if that takes too long."""
        self.process.join(seconds)
        hung = self.process.is_alive()
        self.kill()
        self.process.join()
        printed = [self.streams / name for name in ("out", "err")]
        out, err = (path.read_text("utf-8", errors="replace") if path.exists() else "" for path in printed)
        shutil.rmtree(self.streams, ignore_errors=True)
        return Done(None if hung else self.process.exitcode, out, err)


def start(
    folder: Path,
    *arguments: str,
    streams: Path,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start `unibind ARGUMENTS` in a folder; its process first calls `before` (for limits)."""
    streams.mkdir(parents=True)
    process = _context.Process(
        target=_child, args=(str(folder), arguments, str(streams), before, dict(environment or {}))
    )
    process.start()
    return Running(process, streams)


def _child(
    folder: str, arguments: tuple[str, ...], streams: str, before: Any, environment: dict[str, str]
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update({"OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment})
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(Path(streams) / name, os.O_WRONLY | os.O_CREAT, 0o666)
        os.dup2(descriptor, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["unibind", *arguments]
    if before is not None:
        before()
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    else:
        status = 0
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


@dataclass
class Server:
    """A fake-openai server in a thread, with a log of its answers."""

    url: str
    log: Path

    def reset(self) -> None:
        """Clear the log."""
        self.log.write_bytes(b"")
        urllib.request.urlopen(
            urllib.request.Request(self.url.removesuffix("/v1") + "/_fake/reset", method="POST")
        ).close()

    def answered(self) -> Counter[str]:
        """The number of answers to each request since the reset."""
        return Counter(line.split()[0] for line in self.log.read_text("utf-8").splitlines())


@contextmanager
def fake_server(folder: Path, **settings: Any) -> Iterator[Server]:
    """Run the server within the block."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    log = folder / "asked.log"
    log.touch()
    urls: list[str] = []

    async def serve() -> None:
        async with serve_fake(FakeSettings(**settings), log=log) as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the fake server did not start")
    try:
        yield Server(urls[0], log)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


@dataclass(frozen=True)
class Ground:
    """The projects that attacks copy: `finished` (run to its end) and `fresh` (not run yet)."""

    root: Path
    fresh: Path
    finished: Path
    server: Server
    seconds: float  # of the undisturbed run

    def copy(self, of: Path, name: str) -> Path:
        """A copy to damage, with all modification times; replaces one of the same name."""
        target = self.root / name / "p"
        shutil.rmtree(target.parent, ignore_errors=True)
        shutil.copytree(of, target, symlinks=True)
        return target

    def start(self, folder: Path, *arguments: str, **how: Any) -> Running:
        """`start`, with a file for the output."""
        return start(folder, *arguments, streams=self.root / f"streams-{time.monotonic_ns()}", **how)

    def run(self, folder: Path, *arguments: str, seconds: float = HANGS_S, **how: Any) -> Done:
        """Run a command to its end."""
        return self.start(folder, *arguments, **how).wait(seconds)

    def differences(self, folder: Path) -> list[str]:
        """What differs between a finished run and the undisturbed one: tables, vectors, heads, numbers."""
        ours, theirs = results(folder / RUN), results(self.finished / RUN)
        return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))

    def ends_well(self, folder: Path) -> str | None:
        """Run to the end: what then differs from the undisturbed run, or None.

        Compares results, the ledger and the files with checksums; `kb verify` must find nothing.
        """
        if problem := sound_ledger(folder / RUN):
            return problem
        done = self.run(folder, "run")
        if done.status != 0:
            return f"afterwards: {done.problem() or done.error}"
        if differences := self.differences(folder):
            return f"ends otherwise: {', '.join(differences)}"
        ours, theirs = (_makers(each / RUN) for each in (folder, self.finished))
        if wrong := sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)):
            return f"other checksums: {', '.join(wrong)}"
        found = self.run(folder, "kb", "verify")
        if found.status != 0 or "NOT clean" in found.out:
            return f"afterwards, kb verify: {found.problem() or ''} {found.out[-300:]}"
        return sound_ledger(folder / RUN)


@contextmanager
def ground(root: Path) -> Iterator[Ground]:
    """Make the project and run it undisturbed. Raises RuntimeError if that fails."""
    with fake_server(root, latency_s=0.05) as server:
        fresh = make_project(root / "fresh", server.url)
        place = Ground(root, fresh, root / "finished" / "p", server, 0.0)
        shutil.copytree(fresh, place.finished)
        place.run(place.fresh, "doctor")  # to load the libraries
        started = time.monotonic()
        done = place.run(place.finished, "run", seconds=600)
        place = replace(place, seconds=time.monotonic() - started)
        if done.status != 0:
            raise RuntimeError(f"the undisturbed run failed: {done.err}")
        yield place


def results(run: Path) -> dict[str, Any]:
    """Everything of a run that must be equal each time, by name: without times and latencies."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*.parquet")):
        table = pq.read_table(path)
        found[str(path.relative_to(run))] = table.drop_columns(
            [name for name in VOLATILE if name in table.column_names]
        ).replace_schema_metadata(None)
    for path in [*run.glob("*.safetensors"), *run.glob("evaluation.json"), *run.rglob("encoders.json")]:
        found[str(path.relative_to(run))] = path.read_bytes()
    with suppress(FileNotFoundError):
        metrics = json.loads((run / "metrics.json").read_text("utf-8"))
        found["metrics.json"] = {name: value for name, value in metrics.items() if name != "stages"}
    if (run / "kb" / "ledger.sqlite").is_file():
        found["ledger"] = entries(run)
    return found


def _lists(run: Path) -> Iterator[tuple[Path, str, Sum]]:
    """The checksums of a run and its knowledge base: folder, file name, entry."""
    for folder in (run, run / "kb"):
        for name, entry in (sealed(folder) or {}).items():
            yield folder, name, entry


def _makers(run: Path) -> dict[str, str]:
    """The maker of each file that has a checksum."""
    return {str((folder / name).relative_to(run)): entry.maker for folder, name, entry in _lists(run)}


def false_lines(run: Path) -> str | None:
    """The first wrong checksum; None where all hold.

    A writer removes a file's entry first, so that all entries hold wherever it is stopped.
    """
    try:
        wrong = [
            f"{name} is {how}"
            for folder, name, entry in _lists(run)
            if (how := differs(folder / name, entry))
        ]
    except DamagedError as error:
        return str(error)
    return f"checksums do not hold: {'; '.join(wrong[:3])}" if wrong else None


def entries(run: Path) -> list[tuple[Any, ...]]:
    """The rows of the ledger: key, answer, error. Raises sqlite3.Error where it is damaged."""
    with closing(sqlite3.connect(run / "kb" / "ledger.sqlite")) as ledger:
        return ledger.execute("SELECT key, answer, error FROM entries ORDER BY key").fetchall()


def sound_ledger(run: Path) -> str | None:
    """The damage that SQLite finds in a ledger; None where it is sound or missing."""
    path = run / "kb" / "ledger.sqlite"
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path)) as ledger:
            found = ledger.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        if "full" in str(error) or "I/O" in str(error):
            return None  # the check needs disk space; it is repeated once there is some
        found = str(error)
    return None if found == "ok" else f"the ledger: {found}"
