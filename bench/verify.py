"""`make bench-verify`: the cost of checks compared with reading; writes `bench/results/verify.json`.

    python -m bench.verify [--only kb|deep|readers] [--rounds 5] [--scale 1.0] [--folder FOLDER]

`kb`: `kb verify` of a knowledge base of a million descriptions, made by the pipeline's own `describe`
(bench/million.py) beside its floors, in turns: reading the bytes of its files, reading and hashing them,
reading all rows of tables and ledger, and both of the last two. `--folder` keeps it, or takes the one that is
kept there.

`deep`: `kb verify --deep` of the same, once.

`readers`: how much of reading what `evaluate`, `compare` and `predict` read goes into comparing checksums,
each time as a new process would, on the knowledge base of `make bench-evaluate`. Shards of vectors are not
among them: the store checks each run of vectors as it reads it (`make bench-store`).
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.child import run
from bench.contest import Contest
from bench.evaluate import SETTINGS, K
from bench.fake import UNIBIND, fake_server
from bench.machine import versions
from bench.million import CATEGORIES, TEXTS, describe, write_project
from bench.planted import plant
from bench.rows import at_most, last_rows, median, print_rows, publish, row
from bench.vectors import DIM
from data import reads, seals
from data.files import write_json
from kb_builder.verify import verify
from pipeline.compare.runs import open_run
from trainer.evaluate.measure import evaluate
from trainer.inputs import center_texts, load_controls, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.settings import Localize

RESULTS = Path(__file__).parent / "results" / "verify.json"
PARTS = ("kb", "deep", "readers")
MOST_TIMES, MOST_PERCENT = 2.0, 5.0
_PIECE = 2**20


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the million, and of the samples")
    parser.add_argument("--folder", type=Path, help="keep the knowledge base there, or take that one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    parts = {name: rows for name, rows in last_rows(given.results).items() if name in PARTS}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        home = given.folder or Path(place) / "million"
        measures = {
            "kb": lambda: _kb_rows(home, given.scale, given.rounds),
            "deep": lambda: _deep_rows(home, given.scale),
            "readers": lambda: _reader_rows(Path(place), given.scale, given.rounds),
        }
        for name in given.only or PARTS:
            parts[name] = measures[name]()
    rows = [{"part": name, **row} for name in PARTS for row in parts.get(name, [])]
    command = "python -m bench.verify " + " ".join(sys.argv[1:])
    publish(given.results, rows, versions=versions(("pyarrow", "numpy", "isal")), command=command)
    print_rows(rows)


def _kb_rows(home: Path, scale: float, rounds: int) -> list[dict[str, Any]]:
    kb = _described(home, scale)
    files = [path for path in sorted(kb.rglob("*")) if path.is_file()]
    found = verify(kb)
    if not found.clean or found.counts["rows derived anew"]:
        raise AssertionError(f"{kb} is not as it was written: {found}")
    floors: dict[str, Callable[[], object]] = {
        "reading the bytes": lambda: _read_bytes(files, hashed=False),
        "hashing the bytes": lambda: _read_bytes(files, hashed=True),
        "reading all rows": lambda: _read_rows(kb),
        "hashing the bytes and reading all rows": lambda: _read_rows(kb, hashed=files),
    }
    contest = Contest({"ours": lambda: verify(kb), **floors}, rounds=rounds)
    title = f"kb verify of {found.counts['rows']:,} rows"
    size = f"{found.counts['bytes'] / 1e6:.0f} MB, {found.counts['ledger entries']:,} answers"
    rows = [row(title, contest.median("ours"), "s", runs=contest.seconds["ours"], note=size)]
    for name in floors:
        rows.append(row(f"{title}: {name}", contest.median(name), "s", runs=contest.seconds[name]))
        times = 1 / contest.ratio("ours", name)
        goal = at_most(times, MOST_TIMES, "times") if "all rows" in name else {}
        rows.append(row(f"{title}, of {name}", times, "times as long", against=name, ratio=times, **goal))
    return [*rows, _command_row(home, f"{title}: the command")]


def _deep_rows(home: Path, scale: float) -> list[dict[str, Any]]:
    _described(home, scale)
    return [_command_row(home, "the command with --deep", "--deep")]


def _command_row(home: Path, name: str, *options: str) -> dict[str, Any]:
    ended = run([UNIBIND, "kb", "verify", "--project", home / "unibind.toml", *options])
    note = f"{ended.cpu_s:.1f} s of CPU, {ended.peak_mb:.0f} MB at most in one process"
    return row(name, ended.wall_s if ended.code == 0 else None, "s", note=note)


def _described(home: Path, scale: float) -> Path:
    """The knowledge base in a folder; made there if missing."""
    kb = home / "runs" / "million" / "kb"
    if not (kb / "descriptions" / "manifest.json").exists():
        home.mkdir(parents=True, exist_ok=True)
        with fake_server() as url:
            write_project(home, url, max(1, round(CATEGORIES * scale)))
            ended = describe(home)
        if ended.code != 0:
            raise AssertionError(f"{TEXTS} texts per category: {ended.failure}")
    return kb


def _read_bytes(files: Sequence[Path], *, hashed: bool) -> None:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    for path in files:
        sums = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if hashed:
                    sums.update(view[:count])


def _read_rows(kb: Path, *, hashed: Sequence[Path] = ()) -> None:
    _read_bytes(hashed, hashed=True)
    for path in kb.rglob("*.parquet"):
        with pq.ParquetFile(path) as opened:
            for _ in opened.iter_batches(100_000):
                pass
    with closing(sqlite3.connect(f"{(kb / 'ledger.sqlite').as_uri()}?mode=ro", uri=True)) as ledger:
        for _ in ledger.execute("SELECT * FROM entries"):
            pass


def _reader_rows(place: Path, scale: float, rounds: int) -> list[dict[str, Any]]:
    kb, out = place / "kb", place / "run"
    categories, test, val = (max(10, int(n * scale)) for n in (1_000, 50_000, 2_000))
    plant(kb, categories=categories, k=K, test=test, val=val, dim=DIM)
    out.mkdir()
    localize(kb, Localize(k=K))
    write_json(out / "metrics.json", evaluate(kb, out, SETTINGS))
    for folder in (kb, out):
        seals.seal(folder, [path for path in folder.rglob("*") if path.is_file()], "bench")
    time.sleep(3)  # until the files' times can be relied on
    return [
        _share_row("evaluate", lambda: _read_for_evaluate(kb), rounds),
        _share_row("compare", lambda: open_run(out), rounds),
        _share_row("predict", lambda: _read_for_predict(kb), rounds),
    ]


def _read_for_evaluate(kb: Path) -> None:
    base = open_kb(kb)
    load_centers(base)
    load_samples(base, "zero_shot")
    load_controls(base)


def _read_for_predict(kb: Path) -> None:
    centers = load_centers(open_kb(kb))
    center_texts(kb, centers.row_ids)


def _share_row(command: str, read: Callable[[], object], rounds: int) -> dict[str, Any]:
    """The time of the checks, in percent of the time of reading without them."""
    percents = []
    for _ in range(rounds + 1):
        seals._held.clear()
        seals._loaded.clear()
        with _timed() as spent:
            start = time.perf_counter()
            read()
            wall = time.perf_counter() - start
        percents.append(100 * spent[0] / (wall - spent[0]))
    found = median(percents[1:])
    return row(
        f"{command}: comparing checksums, of reading what it reads",
        found,
        "%",
        runs=percents[1:],
        note=f"{wall:.2f} s in all",
        **at_most(found, MOST_PERCENT, "%"),
    )


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds spent in checks of data/reads.py."""
    spent, kept = [0.0], {name: getattr(reads, name) for name in ("check", "check_names")}

    def timed(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            start = time.perf_counter()
            try:
                function(*arguments)
            finally:
                spent[0] += time.perf_counter() - start

        return call

    for name, function in kept.items():
        setattr(reads, name, timed(function))
    try:
        yield spent
    finally:
        for name, function in kept.items():
            setattr(reads, name, function)


if __name__ == "__main__":
    main()
