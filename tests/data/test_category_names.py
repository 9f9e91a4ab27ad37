"""data.category_names: one sample may have several categories."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.manifest import read_manifest, write_manifest
from data.sample import Category, Sample


def _read(tmp_path: Path, text: str, categories: str | None = None) -> list[tuple[str | None, ...]]:
    (tmp_path / "m.csv").write_text(text)
    listed = tmp_path / "c.txt" if categories else None
    if listed:
        listed.write_text(categories or "")
    samples = read_manifest(tmp_path / "m.csv", categories=listed).samples
    return [(sample.category_id, *sample.more_category_ids) for sample in samples]


def test_several_names_are_a_text_or_a_list(tmp_path: Path) -> None:
    """The first is the category, the others come after it, each once; by name and by id alike."""
    csv = "uri,category\na.png,dog|big cat|dog\nb.png,dog\nc.png,\n"
    assert _read(tmp_path, csv) == [("dog", "big-cat"), ("dog",), (None,)]
    assert _read(tmp_path, csv.replace("category", "category_id"))[0] == ("dog", "big cat")
    rows = [{"uri": "a.png", "category": ["dog", "cat"]}, {"uri": "b.png", "category": ["dog"]}]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.jsonl", "m.parquet"):
        first, second = read_manifest(tmp_path / name).samples
        assert (first.category_id, first.more_category_ids) == ("dog", ("cat",))
        assert (second.category_id, second.more_category_ids) == ("dog", ())


def test_a_listed_name_with_a_bar_wins(tmp_path: Path) -> None:
    """`black|white` is one category where the list has it, two where it does not."""
    csv = "uri,category\na.png,black|white\n"
    assert _read(tmp_path, csv, "black|white\nblack\nwhite\n") == [("black-white",)]
    assert _read(tmp_path, csv, "black\nwhite\n") == [("black", "white")]


def test_each_name_is_checked(tmp_path: Path) -> None:
    """An unknown one of several is told; names and ids must be as many."""
    with pytest.raises(ManifestError, match="'whit' is not in the category list; did you mean 'white'"):
        _read(tmp_path, "uri,category\na.png,black|whit\n", "black\nwhite\n")
    with pytest.raises(ManifestError, match="2 in column category but 1 in category_id"):
        _read(tmp_path, "uri,category,category_id\na.png,black|white,black\n")


def test_a_written_manifest_keeps_them(tmp_path: Path) -> None:
    """Names and ids of several categories survive writing and reading."""
    sample = Sample("s", "image", "a.png", "train", "dog", more_category_ids=("cat", "owl"))
    categories = tuple(Category(each, each.upper()) for each in ("cat", "dog", "owl"))
    write_manifest(tmp_path / "m.parquet", [sample], categories=categories)
    manifest = read_manifest(tmp_path / "m.parquet")
    assert manifest.samples == (sample,)
    assert manifest.categories == categories
