"""`make bench-plan`: memory and time of the plan of `encode`, from one to ten million rows.

    python -m bench.plan [--sizes 1000000,3000000,10000000]     writes bench/results/plan.json

Rows are texts of descriptions, without the texts: ids and SHA-256 as a knowledge base has them, fifty rows to
a category; one content in twenty is a repeated one. Each size is planned in a process of its own. Then all of
its contents are carried over, as if every part of the store were of another plan, which is the most that a
survey asks of a plan; and a hundred parts are read one after the other. Making the rows is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.child import run
from bench.machine import versions
from bench.rows import at_most, print_rows, publish, row
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.planned_rows import PlanLimits
from kb_builder.encode.rows import HASH, TEXT, Digests, StoredTexts, WantedVectors, digests_of
from kb_builder.settings import Encode

RESULTS = Path(__file__).parent / "results" / "plan.json"
GOAL_GB = 4.0  # at the largest
LARGEST = 100_000_000
_AT_A_TIME = 50_000


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="1000000,3000000,10000000")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    rows, peaks = [], []
    for size in sizes:
        mb = PlanLimits().memory_for(size)
        ended = run([sys.executable, "-m", "bench.plan", "--step", str(size), str(mb)])
        if ended.code:
            raise RuntimeError(f"{size} rows with {mb} MB: {ended.failure}")
        found = json.loads(ended.last_line)
        of = f"{size:,} rows with {mb:,} MB"
        peaks.append(ended.peak_mb)
        note = f"{found['disk_mb']:,.0f} MB on disk at the end"
        rows += [
            row(f"plan {of}: peak of memory", ended.peak_mb, "MB", note=note),
            row(f"plan {of}: time", found["plan_s"], "s"),
            row(f"carry {of} over: time", found["carry_s"], "s"),
            row(f"read a part of {of}", found["part_ms"], "ms"),
        ]
    # From the size on at which DuckDB's memory is full.
    slope = 1e6 * (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2])
    more_mb = PlanLimits().memory_for(LARGEST) - PlanLimits().memory_for(sizes[-1])
    largest_gb = (1e6 * (peaks[-1] + more_mb) + slope * (LARGEST - sizes[-1])) / 1e9
    note = f"{slope:.1f} bytes a row from {sizes[-2]:,} to {sizes[-1]:,} rows, {more_mb:,} MB more for DuckDB"
    goal = at_most(largest_gb, GOAL_GB, "GB")
    rows.append(
        row(f"peak of memory at {LARGEST:,} rows, by the growth", largest_gb, "GB", note=note, **goal)
    )
    publish(RESULTS, rows, versions=versions(("duckdb", "pyarrow")), command="python -m bench.plan")
    print_rows(rows)


def pieces(count: int, spent: list[float]) -> Iterator[WantedVectors]:
    """The rows; the seconds that making each piece takes are appended to `spent`."""
    for start in range(0, count, _AT_A_TIME):
        started = time.perf_counter()
        numbers = range(start, min(start + _AT_A_TIME, count))
        ids = [sha256(b"row %d" % number).hexdigest() for number in numbers]
        contents = [sha256(b"%d" % (number if number % 20 else number // 2)).digest() for number in numbers]
        # Categories are spread over the files, as an order that sorting has to change.
        groups = [f"{number * 7919 % count // 50:08d}" for number in numbers]
        texts = StoredTexts([Path(f"part-{start}")], np.zeros(len(ids), np.int32), np.arange(len(ids)))
        piece = WantedVectors(pa.array(ids, TEXT), pa.array(groups, TEXT), pa.array(contents, HASH), texts)
        spent.append(time.perf_counter() - started)
        yield piece


def step(count: int, memory_mb: int) -> None:
    """Plan this many rows in this process, and print the seconds and the memory."""
    spent: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place) / "encoder"
        started = time.perf_counter()
        with plan_parts(
            folder,
            {"t": pieces(count, spent)},
            identity="i",
            rows_per_part=Encode().texts_per_part,
            limits=PlanLimits(memory_mb=memory_mb),
        ) as plan:
            plan_s = time.perf_counter() - started - sum(spent)
            started = time.perf_counter()
            owned = int(plan.owned.sum())
            stored = (plan.rows(part) for part in plan.parts)
            files: Iterator[Digests] = (
                digests_of(pa.array(some.groups), pa.array(some.contents), files=False) for some in stored
            )
            if int(plan.carry(files).sum()) != owned:
                raise AssertionError("a content was not found again")
            carry_s = time.perf_counter() - started
            some = plan.parts[len(plan.parts) // 2 :][:100]
            started = time.perf_counter()
            for part in some:
                plan.rows(part)
                plan.owners(plan.firsts(part))
                plan.carried_by(part)
            part_ms = 1000 * (time.perf_counter() - started) / len(some)
            disk_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    found = {"plan_s": plan_s, "carry_s": carry_s, "part_ms": part_ms, "disk_mb": disk_mb}
    print(json.dumps(found))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--step":
        step(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
