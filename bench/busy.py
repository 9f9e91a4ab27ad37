"""`make bench-busy`: the demo's stages quiet and beside a busy core; writes `bench/results/busy.json`.

    python -m bench.busy [--rounds 2] [--objects 4] [--texts 6]

A smaller demo (`--objects` of each category, `--texts` texts each; 16 and 24 in the demo itself) is run from
nothing, in turns quiet and beside a process that does nothing but count. Each run is a new process; its
stages' seconds are those of its marks. On two cores a stage that uses both has three quarters of them left,
one that uses a single core all of it, and the scheduler may give it half: twice as long is fair. More means
threads that spin while they wait for one that is not running.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench.child import run
from bench.fake import UNIBIND
from bench.machine import versions, wait_for_quiet
from bench.rows import at_most, median, print_rows, publish, row
from pipeline.cli.main import DEMO_PROJECT

RESULTS = Path(__file__).parent / "results" / "busy.json"
MOST_TIMES = 2.2
LEAST_S = 1.0  # a shorter stage says more about the scheduler than about itself: it has no goal
QUIET, WAIT_S = 0.10, 60.0


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--objects", type=int, default=4, help="of each category")
    parser.add_argument("--texts", type=int, default=6, help="of each category")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    quiet: list[dict[str, float]] = []
    busy: list[dict[str, float]] = []
    for turn in range(given.rounds):
        for beside in (False, True) if turn % 2 == 0 else (True, False):
            wait_for_quiet(QUIET, at_most_s=WAIT_S)
            with burning() if beside else nullcontext():
                (busy if beside else quiet).append(stages(given.objects, given.texts))
    command = f"python -m bench.busy --rounds {given.rounds} --objects {given.objects} --texts {given.texts}"
    rows = _rows(quiet, busy)
    publish(given.results, rows, versions=versions(("numpy", "torch", "xllamacpp")), command=command)
    print_rows(rows)


@contextmanager
def burning() -> Iterator[None]:
    """Within: another process keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def stages(objects: int, texts: int) -> dict[str, float]:
    """The seconds of every stage of one run from nothing, and of the whole command as `demo`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        project = Path(place) / "demo.toml"
        content = DEMO_PROJECT.read_text(encoding="utf-8")
        content = content.replace("\nn = 24 ", f"\nn = {texts} ")
        project.write_text(f"{content}\n[tabletop]\nobjects_per_category = {objects}\n", encoding="utf-8")
        ended = run([UNIBIND, "run", "--project", project])
        if ended.code:
            raise RuntimeError(ended.failure)
        metrics = json.loads((Path(place) / "runs" / "demo" / "metrics.json").read_text(encoding="utf-8"))
        return {each["name"]: each["seconds"] for each in metrics["stages"]} | {"demo": ended.wall_s}


def _rows(quiet: list[dict[str, float]], busy: list[dict[str, float]]) -> list[dict[str, Any]]:
    """For each stage its seconds beside a busy core, and how many times as long that is."""
    rows = []
    for name in quiet[0]:
        alone, beside = ([each[name] for each in runs] for runs in (quiet, busy))
        own, other = median(alone), median(beside)
        assert own is not None and other is not None
        times = median([b / max(a, 1e-3) for a, b in zip(alone, beside, strict=True)])
        rows.append(
            row(
                f"{name} beside a busy core",
                other,
                "s",
                against=f"quiet: {own:.3g} s",
                ratio=times,
                runs=beside,
                **at_most(times, MOST_TIMES, "times as long") if own >= LEAST_S else {},
            )
        )
    return rows


if __name__ == "__main__":
    main()
