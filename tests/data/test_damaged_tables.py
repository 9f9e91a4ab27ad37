"""Damaged manifests, category lists and UniBind lists end in errors of ours, whatever was done to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UniBindError
from data.manifest.categories import read_categories
from data.manifest.read import read_manifest

Mutations = Callable[[bytes, int], Iterator[bytes]]

_ROWS = [
    {
        "sample_id": f"s{n}",
        "object_id": f"o{n % 3}",
        "modality": ("image", "audio")[n % 2],
        "uri": f"dog/ä{n}.png",
        "category": ("dog", "C++", "dog|cat", None)[n % 4],
        "category_id": None,
        "split": ("train", "val", "test")[n % 3],
        "description": 'a "brown", dog\nruns' if n % 2 else None,
    }
    for n in range(12)
]
_CATEGORIES = [
    {"category_id": f"c{n}", "name": f"näme {n}", "aliases": "a|b", "notes": None} for n in range(5)
]


def _csv(rows: list[dict[str, str | None]], separator: str) -> bytes:
    quoted = [['"' + (cell or "").replace('"', '""') + '"' for cell in row.values()] for row in rows]
    return "\n".join(map(separator.join, [list(rows[0]), *quoted])).encode()


def _jsonl(rows: list[dict[str, str | None]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def _parquet(rows: list[dict[str, str | None]], *, plain: bool = False) -> bytes:
    """Compressed text; or plain, with columns that are no text."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    if plain:
        numbers = pa.array([number / 2 for number in range(len(rows))], pa.float32())
        lists = pa.array([(row["category"] or "").split("|") for row in rows])
        table = table.set_column(1, "object_id", numbers).set_column(4, "category", lists)
    pq.write_table(table, sink, compression="none" if plain else "snappy")
    return sink.getvalue().to_pybytes()


def _lists() -> bytes:
    entries = [{"data": row["uri"], "label": row["category"] or 7, "description": "x"} for row in _ROWS]
    return json.dumps(entries, ensure_ascii=False).encode()


_MANIFESTS = {
    "m.parquet": _parquet(_ROWS),
    "plain.parquet": _parquet(_ROWS, plain=True),
    "m.csv": _csv(_ROWS, ","),
    "excel.csv": b"\xef\xbb\xbfsep=;\n" + _csv(_ROWS, ";"),
    "unicode.txt": _csv(_ROWS, "\t").decode().encode("utf-16"),
    "m.jsonl": _jsonl(_ROWS),
    "train_data.json": _lists(),
}
_LISTS = {
    "c.parquet": _parquet(_CATEGORIES),
    "c.csv": _csv(_CATEGORIES, ","),
    "c.tsv": _csv(_CATEGORIES, "\t"),
    "c.jsonl": _jsonl(_CATEGORIES),
    "c.txt": "dog\nC++\nnäme\n".encode(),
}


def _damage(folder: Path, name: str, mutations: Mutations, number: int) -> tuple[int, int]:
    """How many damaged copies were read, and how many refused by an error of ours; others are raised."""
    read, refused = 0, 0
    content = _MANIFESTS[name] if name in _MANIFESTS else _LISTS[name]
    path = folder / name
    path.write_bytes(content)
    assert read_manifest(path).samples if name in _MANIFESTS else read_categories(path)
    for copy in mutations(content, number):
        path.write_bytes(copy)
        try:
            read_manifest(path, root=folder) if name in _MANIFESTS else read_categories(path)
            read += 1
        except UniBindError as error:
            assert str(error).startswith((str(path), str(folder)))
            refused += 1
    return read, refused


@pytest.mark.parametrize("name", [*_MANIFESTS, *_LISTS])
def test_damage_ends_in_an_error_of_ours(tmp_path: Path, name: str, mutations: Mutations) -> None:
    """A few dozen damaged copies of each kind of table: read, or refused by a line that names the file."""
    _, refused = _damage(tmp_path, name, mutations, 60)
    assert refused or name == "c.txt"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_MANIFESTS, *_LISTS])
def test_much_damage_ends_in_an_error_of_ours(tmp_path: Path, name: str, mutations: Mutations) -> None:
    """The same, thousands of times."""
    assert sum(_damage(tmp_path, name, mutations, 4000)) == 4000
