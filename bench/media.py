"""`make bench-media`: measure decoding and preparing samples, and write `bench/results/media.json`.

    python -m bench.media [--rounds 9] [--only image,audio]

A worker is a thread with one BLAS thread and, for our way, its decoder process, as when a run encodes; one
worker, like the bare decoder, has one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bench.contest import Contest
from bench.machine import versions
from bench.media_files import make_files
from bench.media_ways import WAYS, Ways
from bench.rows import at_least, at_most, print_rows, publish, row
from data.readers.payload import Events
from data.readers.points.geometry import farthest_points
from data.render.event import EVENT_DRAWINGS
from kb_builder.encoders.workers import map_batches

RESULTS = Path(__file__).parent / "results" / "media.json"
PACKAGES = ("pillow", "soundfile", "soxr", "av", "numpy", "tifffile", "torch")
TURN_S = 0.8  # the approximate length of a turn of one worker
BATCH, BATCHES = 8, 40  # of the feeding
SLOWER = 1.5  # times as long as a batch's decoding the encoder takes


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="modalities, separated by commas; nothing is written then")
    given = parser.parse_args()
    only = [name for name in given.only.split(",") if name]
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, threadpool_limits(limits=1):
        files = make_files(Path(folder))
        for modality in only or WAYS:
            rows += _decoding(modality, WAYS[modality], files[modality], given.rounds)
        if not only:
            rows += [*_feeding(files["image"], given.rounds), *_single(given.rounds)]
    if not only:
        publish(RESULTS, rows, versions=versions(PACKAGES), command="python -m bench.media")
    print_rows(rows)


def _decoding(modality: str, ways: Ways, files: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    """Ours, the bare decoder, and ours on two workers, in turns; their results must agree first.

    Files come in batches, as encoders take them.
    """
    pairs = zip(ways.ours(files), ways.bare(files), strict=True)
    apart = max(float(np.abs(np.subtract(ours, bare, dtype=np.float64)).max()) for ours, bare in pairs)
    if apart > ways.agree:
        raise AssertionError(f"{modality}: ours and {ways.decoder} lie {apart} apart")
    start = time.perf_counter()
    ways.bare(files)
    batches = [files] * (2 * ceil(TURN_S / 2 / (time.perf_counter() - start)))
    count = len(files) * len(batches)
    bare, ours, two = f"bare {ways.decoder}", "ours", "ours, two workers"
    with ThreadPoolExecutor(2) as threads:
        contest = Contest(
            {
                bare: lambda: _on_one_core(ways.bare, batches),
                ours: lambda: _on_one_core(ways.ours, batches),
                two: lambda: list(threads.map(ways.ours, batches)),
            },
            rounds=rounds,
        )
    title = f"{modality}, {ways.what}"
    against, doubled = contest.ratio(ours, bare), contest.ratio(two, ours)
    return [
        *(
            row(
                f"{title}: {name}",
                count / contest.median(name),
                "samples/s",
                runs=[count / seconds for seconds in contest.seconds[name]],
                note=f"they differ by {apart:.2g} at most" if name == ours else None,
            )
            for name in contest.seconds
        ),
        row(
            f"{title}: ours against {bare}",
            against,
            "times as fast",
            against=bare,
            ratio=against,
            **at_least(against, 0.7),
        ),
        row(
            f"{title}: two workers against one",
            doubled,
            "times as fast",
            against="one worker",
            ratio=doubled,
            **at_least(doubled, 1.7),
        ),
    ]


def _on_one_core(way: Callable[[Sequence[Path]], Any], batches: Sequence[Sequence[Path]]) -> None:
    """Batches one by one, this thread and the decoder processes on one core together."""
    cores = os.sched_getaffinity(0)
    _bind({min(cores)})
    try:
        for batch in batches:
            way(batch)
    finally:
        _bind(cores)


def _bind(cores: set[int]) -> None:
    for process in (0, *_children()):
        with suppress(ProcessLookupError):  # a decoder that was idle for long has ended
            os.sched_setaffinity(process, cores)


def _children() -> list[int]:
    """The child processes of this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            found += [int(stat.parent.name)] * (int(parent) == os.getpid())
    return found


def _feeding(files: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    """How long an encoder waits for its batches if it is slower than decoding, as a GPU may be.

    Batches go through `map_batches`, as in `encode_parts`. The waits between two batches are counted, not the
    wait for the first one.
    """
    decode = WAYS["image"].ours
    batches = [[files[(start + place) % len(files)] for place in range(BATCH)] for start in range(BATCHES)]
    decode(batches[0])
    start = time.perf_counter()
    decode(batches[0])
    takes_s = SLOWER * (time.perf_counter() - start)
    device = threading.Lock()
    busy: list[tuple[float, float]] = []

    def encode(batch: list[Path]) -> None:
        decode(batch)
        with device:
            begun = time.perf_counter()
            time.sleep(takes_s)
            busy.append((begun, time.perf_counter()))

    shares = []
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for _ in range(rounds):
        busy.clear()
        list(map_batches(encode, batches))
        waits = sum(later[0] - earlier[1] for earlier, later in pairwise(busy))
        shares.append(waits / (busy[-1][1] - busy[0][0]))
    share = float(np.median(shares))
    return [
        row(
            "feeding: share of the time that a slower encoder waits for its next batch",
            share,
            "of its time",
            runs=shares,
            note=f"{BATCHES} batches of {BATCH} JPEGs, each encoded in {1e3 * takes_s:.0f} ms on one device, "
            f"{SLOWER:g} times what decoding it takes one thread",
            **at_most(share, 0.02, "of its time"),
        )
    ]


def _single(rounds: int) -> list[dict[str, Any]]:
    """Two goals in seconds: to draw a million events, and to choose 8,192 of 100,000 points."""
    rng = np.random.default_rng(0)
    count = 1_000_000
    events = Events(
        rng.integers(0, 640, count).astype(np.uint16),
        rng.integers(0, 480, count).astype(np.uint16),
        np.sort(rng.integers(0, 10**6, count)),
        rng.random(count) < 0.5,
        640,
        480,
    )
    cloud = rng.normal(size=(100_000, 3)).astype(np.float32)
    contenders: dict[str, Any] = {
        f"a million events drawn as {way}": (lambda draw=drawing.draw: draw(events))
        for way, drawing in EVENT_DRAWINGS.items()
    }
    chosen = "8,192 of 100,000 points, farthest first"
    contest = Contest({**contenders, chosen: lambda: farthest_points(cloud[None], 8192)}, rounds=rounds)
    found = []
    for name in contest.seconds:
        goal = 2000.0 if name == chosen else 50.0
        milliseconds = 1e3 * contest.median(name)
        found.append(row(name, milliseconds, "ms", **at_most(milliseconds, goal, "ms")))
    return found


if __name__ == "__main__":
    main()
