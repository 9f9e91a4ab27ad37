"""`make bench-scale`: what spreading costs, and how well it fills workers; writes `bench/results/scale.json`.

    python -m bench.scale [--parts 2000] [--rounds 6] [--work 5]

- The driver's own time for each part: survey, sheet, order, result and commit, with an encoder that costs
  nothing, for parts of 8 rows and for a million rows in parts of 4,096; and its memory, each in a process of
  its own.
- Pictures that one process draws for the requests to a vision model, on all cores of this machine.
- Seconds of single parts of 1,024 texts by MiniLM, which `python -m bench.scale_sim` replays, and of parts
  that should take 5 s (`part_seconds`).
- With the extra `ray`: a cluster of two nodes on loopback, with a token. The time from the start of a run to
  its first result, the engine's time for an empty order, and how busy workers are with orders of `--work` s.
- Efficiency of encoding on 2, 4 and 8 workers, as far as this machine has cores for them.

On shared or few cores the last is not measured: the row says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.machine import versions
from bench.media_files import make_files
from bench.memory import memory_rise
from bench.rows import at_least, at_most, median, print_rows, publish, row
from data.environment import cores
from data.modality import Modality
from data.readers.companions import content_hash
from data.readers.sandbox.budget import FileBudget
from data.work import Work, here
from kb_builder.describers.media import MediaFiles, media_for
from kb_builder.encode.parts import encode_parts
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.rates import TEXTS as KIND
from kb_builder.encode.rates import RateWork, rows_by_seconds
from kb_builder.encode.rows import ROWS_AT_A_TIME, TEXT, StoredTexts, WantedVectors, hash_texts
from kb_builder.encode.spread import Spread
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import Encoder, Floats, Source
from kb_builder.settings import DescribeSamples, Encode

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "scale.json"
SETTINGS = Encode(device="cpu")
A_MILLION = 1_000_000
ASKED_S = 5.0  # `part_seconds`
TEXTS = 1024  # of a measured part
PARTS = 64  # encoded on a cluster
WANTED = {2: 0.95, 4: 0.90, 8: 0.85}  # efficiency by workers
ORDERS = """
import json, sys, time
from bench.scale import Wait
from pipeline.engines.choose import engine_of
from pipeline.project import RunSection
address, slots, rounds, work = sys.argv[1], *map(float, sys.argv[2:])
with engine_of(RunSection(engine="ray", address=address)) as engine:
    started = time.perf_counter()
    first = None
    for _ in engine.map(Wait(0.0), range(int(slots) * 4)):
        first = first or time.perf_counter() - started
    started = time.perf_counter()
    count = sum(1 for _ in engine.map(Wait(0.0), range(2000)))
    empty = (time.perf_counter() - started) / count
    started = time.perf_counter()
    seconds = sum(engine.map(Wait(work), range(int(slots * rounds))))
    busy = seconds / (slots * (time.perf_counter() - started))
print(json.dumps({"first": first, "empty": empty, "busy": busy}))
"""


class Nothing:
    """An encoder that costs nothing."""

    name = identity = licence = "nothing"
    dim, parameters = 2, 0
    modalities = frozenset({"text"})

    def prepare(self, modality: Modality, source: Source) -> str:
        """The text."""
        return str(source)

    def encode(self, batch: Sequence[str]) -> Floats:
        """The same vector for each."""
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(batch), 1))


class Wait:
    """Work that waits, and says for how long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, orders: Iterable[Any]) -> Iterator[float]:
        """The seconds of each order."""
        for _ in orders:
            started = time.perf_counter()
            time.sleep(self.seconds)
            yield time.perf_counter() - started


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=6, help="orders for each worker")
    parser.add_argument("--work", type=float, default=5.0, help="seconds of an order")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = [*driver_alone(8, given.parts), *driver_alone(4096, -(-A_MILLION // 4096))]
    rows += [*single_parts(), *pictures()]
    rows += on_ray(given.rounds, given.work)
    command = f"python -m bench.scale --parts {given.parts} --rounds {given.rounds} --work {given.work:g}"
    publish(given.results, rows, versions=versions(("ray", "torch", "pyarrow")), command=command)
    print_rows(rows)
    print(f"measured on {cores()} cores")


def wanted(folder: Path, count: int, *, rows: int) -> Iterator[WantedVectors]:
    """So many different texts, in groups of `rows`, piece by piece as a table of descriptions gives them."""
    for start in range(0, count, ROWS_AT_A_TIME):
        numbers = range(start, min(count, start + ROWS_AT_A_TIME))
        texts = pa.array([f"this is text number {number} of a table of many" for number in numbers])
        path = folder / f"texts-{start}.parquet"
        pq.write_table(pa.table({"text": texts}), path)
        ids = pa.array([sha256(b"%d" % number).hexdigest() for number in numbers], TEXT)
        groups = pa.array([f"{number // rows:07d}" for number in numbers], TEXT)
        stored = StoredTexts([path], np.zeros(len(numbers), np.int32), np.arange(len(numbers)))
        yield WantedVectors(ids, groups, hash_texts(texts), stored)


def driver_alone(rows: int, count: int) -> list[dict[str, Any]]:
    """`driver` in a process of its own, whose memory is that of nothing else."""
    code = f"import json; from bench.scale import driver; print(json.dumps(driver({rows}, {count})))"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: list[dict[str, Any]] = json.loads(said.strip().splitlines()[-1])
    return found


def driver(rows: int, count: int) -> list[dict[str, Any]]:
    """The time of the driver for a part, without the work itself."""
    spent = 0.0

    def timed(work: Work, orders: Iterable[Any]) -> Generator[Any]:
        nonlocal spent
        for order in orders:
            started = time.perf_counter()
            (made,) = work([order])
            spent += time.perf_counter() - started
            yield made

    with tempfile.TemporaryDirectory() as scratch, memory_rise() as rise:
        table = wanted(Path(scratch), rows * count, rows=rows)
        with plan_parts(Path(scratch) / "out", {"t": table}, identity="nothing", rows_per_part=rows) as plan:
            started = time.perf_counter()
            encode_parts(plan, Nothing(), SETTINGS, what="texts", spread=Spread(map=timed, elsewhere=True))
        each_ms = 1000 * (time.perf_counter() - started - spent) / count
    of, peak_gb = f"{count:,} parts of {rows:,} rows", rise.peak_mb / 1000
    return [
        row(f"driver, {of}", each_ms, "ms a part", **at_most(each_ms, 5.0, "ms")),
        row(f"memory of the driver, {of}", peak_gb, "GB", **at_most(peak_gb, 1.0, "GB")),
    ]


def pictures(seconds: float = 2.0) -> list[dict[str, Any]]:
    """Pictures drawn for requests on all cores, in samples a second, by modality."""
    settings = DescribeSamples(describer="openai", model="any")
    rows = []
    with tempfile.TemporaryDirectory() as top, ThreadPoolExecutor(cores()) as threads:
        for modality, paths in make_files(Path(top)).items():
            samples = [
                {"modality": modality, "uri": path.name, "sha256": content_hash(modality, path)}
                for path in paths
            ]
            files = MediaFiles(Path(top), [(each["sha256"], each["uri"]) for each in samples])
            media = [one for sample in samples for one in media_for(sample, settings)]
            sizes = [len(files.encoded(one)[1]) for one in media]  # the decoders have started
            runs = []
            for _ in range(3):
                started, drawn = time.perf_counter(), 0
                while (spent := time.perf_counter() - started) < seconds / 3:
                    drawn += len(list(threads.map(files.part, media)))
                runs.append(drawn / spent)
            note = f"{cores()} cores; {sum(sizes) / len(sizes) / 1e3:.0f} kB each"
            rows.append(row(f"pictures drawn, {modality}", median(runs), "a second", runs=runs, note=note))
    return rows


def single_parts() -> list[dict[str, Any]]:
    """Seconds of single parts by MiniLM, on all cores of this machine: of some rows, and of some seconds."""
    encoder: Encoder = load_encoder("minilm", "cpu")
    rates = RateWork(lambda: encoder, encoder.identity, Encode(part_seconds=ASKED_S), FileBudget())
    with tempfile.TemporaryDirectory() as top:
        some = partial(wanted, Path(top), 2048, rows=TEXTS)
        size = rows_by_seconds(Path(top) / "rates", {KIND}, some, rates, here)[0][KIND]
    runs, by_seconds = seconds_of_parts(encoder, TEXTS, 12), seconds_of_parts(encoder, size, 3)
    note = f"{TEXTS:,} short texts each, {cores()} cores"
    took = median(by_seconds)
    return [
        row("seconds of single parts", median(runs), "s", runs=runs, note=note),
        row(
            f"seconds of parts of {ASKED_S:g} s",
            took,
            "s",
            runs=by_seconds,
            note=f"[encode] part_seconds: {size:,} short texts each",
            against="what was asked for",
            ratio=None if took is None else took / ASKED_S,
        ),
    ]


def seconds_of_parts(encoder: Encoder, rows: int, count: int) -> list[float]:
    """How long each of some parts takes."""
    runs: list[float] = []

    def timed(work: Work, orders: Iterable[Any]) -> Generator[Any]:
        for order in orders:
            started = time.perf_counter()
            (made,) = work([order])
            runs.append(time.perf_counter() - started)
            yield made

    with tempfile.TemporaryDirectory() as scratch:
        table = wanted(Path(scratch), rows * count, rows=rows)
        folder = Path(scratch) / "out"
        with plan_parts(folder, {"t": table}, identity=encoder.identity, rows_per_part=rows) as plan:
            encode_parts(plan, encoder, SETTINGS, what="texts", spread=Spread(map=timed, elsewhere=True))
    return runs


def on_ray(rounds: int, work: float) -> list[dict[str, Any]]:
    """The engine on a cluster of two nodes on loopback; rows without values where Ray is not installed."""
    names = ("first result on a standing cluster", "an empty order", "busy workers")
    if importlib.util.find_spec("ray") is None:
        return [row(name, None, "", note="the extra `ray` is not installed") for name in names]
    from tests.pipeline.engines.cluster import HEAD, OTHER, new_cluster

    slots = 4
    cluster = new_cluster(python_path=str(ROOT))
    try:
        cluster.start(HEAD, cpus=slots // 2)
        cluster.start(OTHER, cpus=slots // 2)
        command = [sys.executable, "-c", ORDERS, cluster.address, str(slots), str(rounds), str(work)]
        said = subprocess.run(
            command, env=cluster.environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    finally:
        cluster.stop()
    found = json.loads(said.strip().splitlines()[-1])
    note = f"{slots} workers on two nodes of {os.cpu_count()} cores in all"
    rows = [
        row(names[0], found["first"], "s", note=note, **at_most(found["first"], 15.0, "s")),
        row(names[1], 1000 * found["empty"], "ms", note=note, **at_most(1000 * found["empty"], 5.0, "ms")),
        row(
            f"{names[2]}, orders of {work:g} s",
            found["busy"],
            "of the time",
            note=f"{note}; orders that wait, so that cores do not matter",
            ratio=found["busy"],
            **at_least(found["busy"], 0.98),
        ),
    ]
    return [*rows, *efficiency()]


def efficiency() -> list[dict[str, Any]]:
    """Encoding on several workers of one core each, against one; only as many as there are cores."""
    free = cores() - 1  # one is for the driver and the cluster itself
    one_s = encode_on_cluster(1) if free >= min(WANTED) else None
    rows = []
    for workers, least in WANTED.items():
        if one_s is None or free < workers:
            note = f"not measured: needs {workers + 1} idle cores, this machine has {cores()}"
            rows.append(row(f"efficiency, {workers} workers", None, "", note=note, **at_least(None, least)))
            continue
        share = one_s / (workers * encode_on_cluster(workers))
        note = f"on {cores()} cores"
        rows.append(
            row(f"efficiency, {workers} workers", share, "", ratio=share, note=note, **at_least(share, least))
        )
    return rows


def encode_on_cluster(workers: int) -> float:
    """Seconds of encoding `PARTS` parts on a cluster of one node, on workers that have the encoder."""
    from tests.pipeline.engines.cluster import HEAD, new_cluster

    cluster = new_cluster(python_path=str(ROOT))
    try:
        cluster.start(HEAD, cpus=workers)
        code = "import sys; from bench.scale import encode_here; encode_here(sys.argv[1], int(sys.argv[2]))"
        said = subprocess.run(
            [sys.executable, "-c", code, cluster.address, str(workers)],
            env=cluster.environment,
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    finally:
        cluster.stop()
    return float(said.strip().splitlines()[-1])


def encode_here(address: str, workers: int) -> None:
    """Encode as the driver of a cluster whose workers have loaded the encoder, and print the seconds."""
    from pipeline.engines.choose import engine_of
    from pipeline.project import RunSection

    encoder = load_encoder("minilm", "cpu")
    with engine_of(RunSection(engine="ray", address=address)) as engine, tempfile.TemporaryDirectory() as top:
        for name, parts in (("warm", 2 * workers), ("timed", PARTS)):
            folder = Path(top) / name
            folder.mkdir()
            table = wanted(folder, TEXTS * parts, rows=TEXTS)
            with plan_parts(
                folder / "out", {"t": table}, identity=encoder.identity, rows_per_part=TEXTS
            ) as plan:
                started = time.perf_counter()
                encode_parts(
                    plan,
                    encoder,
                    SETTINGS,
                    what="texts",
                    spread=Spread(map=engine.map, elsewhere=True),
                    load=partial(load_encoder, "minilm", "cpu"),
                )
                seconds = time.perf_counter() - started
    print(seconds)


if __name__ == "__main__":
    main()
