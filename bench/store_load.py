"""Part `load` of `make bench-store`: reading vectors, whole and in part, and five nearest by SQL."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.child import run
from bench.contest import Contest
from bench.rows import at_least, at_most, median, row
from bench.vectors import DIM, names, unit
from kb_builder.store.table import open_table, part_paths, write_vectors

ROWS, GROUPS = 200_000, 1_000
LARGE_ROWS = 1_000_000
TRIES = 20  # of calls that take milliseconds, in one turn
OPENINGS = 5


def measure_load(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The rows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        n, groups = int(ROWS * scale), int(GROUPS * scale)
        x_ND = unit(n)
        ids, owners = names(n, groups)
        _write(folder, x_ND, ids, owners)
        whole = _whole(folder, x_ND, rounds)
        part = _one_group(folder, owners[n // 2], rounds)
        nearest = _sql(folder, x_ND[n // 3], rounds)
        del x_ND
        return [*whole, *part, *nearest, _opening(folder, int(LARGE_ROWS * scale))]


def _write(folder: Path, x_ND: Any, ids: list[str], owners: list[str]) -> None:
    for dtype in ("float16", "float32"):
        write_vectors(folder / dtype, ids=ids, groups=owners, vectors_ND=x_ND, dtype=dtype)
    flat = pa.array(x_ND.reshape(-1))
    vectors = pa.ListArray.from_arrays(np.arange(0, x_ND.size + 1, DIM, dtype=np.int32), flat)
    (folder / "default").mkdir()
    pq.write_table(
        pa.table({"id": ids, "group": owners, "embedding": vectors}), folder / "default" / "vectors.parquet"
    )
    np.save(folder / "float32.npy", x_ND)
    np.save(folder / "float16.npy", x_ND.astype(np.float16))


def _whole(folder: Path, x_ND: Any, rounds: int) -> list[dict[str, Any]]:
    """All vectors into one float32 matrix."""
    import torch  # noqa: F401  (as in the trainer: where it is loaded, the store widens half floats by it)
    from embedding_reader import EmbeddingReader

    def default() -> Any:
        column = pq.read_table(folder / "default" / "vectors.parquet", columns=["embedding"])["embedding"]
        return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(-1, DIM)

    def reader() -> Any:
        source = EmbeddingReader(
            str(folder / "default"), file_format="parquet", embedding_column="embedding", meta_columns=["id"]
        )
        return np.concatenate([block for block, _ in source(len(x_ND), show_progress=False)])

    contenders = {
        "ours, float32": lambda: open_table(folder / "float32").read_vectors(),
        "ours, float16": lambda: open_table(folder / "float16").read_vectors(),
        "np.load, float32": lambda: np.load(folder / "float32.npy"),
        "np.load, float16, and astype": lambda: np.load(folder / "float16.npy").astype(np.float32),
        "pyarrow, default file": default,
        "embedding-reader, default file": reader,
    }
    for name, load in contenders.items():
        off = float(np.abs(load() - x_ND).max())
        if off > (2**-12 if "float16" in name else 0):
            raise AssertionError(f"{name} gives other vectors: off by {off}")
    contest = Contest(contenders, rounds=rounds)
    title = f"load {len(x_ND):,} × {DIM}"
    rows = [
        row(f"{title}: {name}", contest.median(name), "s", runs=contest.seconds[name]) for name in contenders
    ]
    compared = (
        ("ours, float32", "embedding-reader, default file", 10.0),
        ("ours, float32", "pyarrow, default file", 4.0),
        ("ours, float32", "np.load, float32", 1 / 1.3),
        ("ours, float16", "embedding-reader, default file", 10.0),
        ("ours, float16", "pyarrow, default file", 4.0),
        ("ours, float16", "np.load, float16, and astype", 1 / 1.3),
    )
    return [*rows, *(_speed(title, contest, *each) for each in compared)]


def _speed(title: str, contest: Contest, own: str, other: str, goal: float) -> dict[str, Any]:
    ratio = contest.ratio(own, other)
    return row(
        f"{title}: {own} against {other}",
        ratio,
        "times as fast",
        against=other,
        ratio=ratio,
        **at_least(ratio, round(goal, 3)),
    )


def _one_group(folder: Path, group: str, rounds: int) -> list[dict[str, Any]]:
    """The ids and vectors of one category of the thousand, with the file opened each time."""

    def default() -> Any:
        table = pq.read_table(folder / "default" / "vectors.parquet", filters=[("group", "==", group)])
        return table["id"], table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)

    def scan() -> Any:
        table = pq.read_table(folder / "default" / "vectors.parquet")
        table = table.filter(pc.equal(table["group"], group))
        return table["id"], table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)

    def ours() -> Any:
        return [open_table(folder / "float16").read(group) for _ in range(TRIES)]

    own = ours()[0]
    for other in (default, scan):
        ids, x_ND = other()
        if own.ids != ids.to_pylist() or np.abs(own.vectors_ND - x_ND).max() > 2**-12:
            raise AssertionError("one category: other rows than of the default file")
    contest = Contest({"ours": ours, "filters=": default, "read and filter": scan}, rounds=rounds)
    best = min(("filters=", "read and filter"), key=contest.median)
    ratio = TRIES * contest.ratio("ours", best)
    return [
        row("one category of 1,000: ours", 1e3 * contest.median("ours") / TRIES, "ms"),
        *(
            row(f"one category: pyarrow, default file, {name}", 1e3 * contest.median(name), "ms")
            for name in ("filters=", "read and filter")
        ),
        row(
            "one category: ours against the faster of them",
            ratio,
            "times as fast",
            against=best,
            ratio=ratio,
            **at_least(ratio, 20.0),
        ),
    ]


def _sql(folder: Path, query_D: Any, rounds: int) -> list[dict[str, Any]]:
    """The five nearest, by the SQL that a user would write."""
    literal = f"{query_D.tolist()}::FLOAT[{DIM}]"

    def ask(files: list[str], column: str) -> Any:
        with duckdb.connect() as connection:
            return connection.execute(
                f"SELECT id FROM read_parquet({files}) ORDER BY"
                f" array_inner_product({column}::FLOAT[{DIM}], {literal}) DESC LIMIT 5"
            ).fetchall()

    sources = {
        "our float32": ([str(path) for path in part_paths(folder / "float32")], "vector"),
        "our float16": ([str(path) for path in part_paths(folder / "float16")], "vector"),
        "default": ([str(folder / "default" / "vectors.parquet")], "embedding"),
    }
    found = {name: ask(*source) for name, source in sources.items()}
    if len({str(rows) for rows in found.values()}) > 1:
        raise AssertionError(f"the five nearest differ: {found}")
    contest = Contest({name: lambda s=source: ask(*s) for name, source in sources.items()}, rounds=rounds)
    rows = [
        row(f"five nearest by SQL: {name} file", contest.median(name), "s", runs=contest.seconds[name])
        for name in sources
    ]
    for name in ("our float32", "our float16"):
        ratio = contest.ratio(name, "default")
        rows.append(
            row(
                f"five nearest by SQL: {name} against default",
                ratio,
                "times as fast",
                against="default file",
                ratio=ratio,
                **at_least(ratio, 3.0),
            )
        )
    return rows


_OPEN = """
import sys, time, json
from pathlib import Path
import numpy
from kb_builder.store import open_table
start = time.perf_counter()
table = open_table(Path(sys.argv[1]))
opened = time.perf_counter() - start
rows = len(table.read(sys.argv[2]).ids)
print(json.dumps([opened, time.perf_counter() - start, rows]))
"""


def _opening(folder: Path, n: int) -> dict[str, Any]:
    """Seconds to the first category's vectors, in a new process that has only imported the store."""
    x_ND = unit(n)
    ids, owners = names(n, n // 1_000)
    write_vectors(folder / "large", ids=ids, groups=owners, vectors_ND=x_ND)
    del x_ND
    command = [sys.executable, "-c", _OPEN, folder / "large", owners[n // 2]]
    seconds = []
    for _ in range(OPENINGS):
        ended = run(command, env={"PYTHONPATH": str(Path.cwd())})
        if ended.code:
            return row("opening", None, "s", note=ended.failure)
        seconds.append(json.loads(ended.last_line)[1])
    value = median(seconds)
    return row(f"opening {n:,} × {DIM}: first category", value, "s", runs=seconds, **at_most(value, 0.2, "s"))
