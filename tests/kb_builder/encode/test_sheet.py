"""A sheet read elsewhere asks for what it asked for here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_text
from kb_builder.encode.rows import hash_texts
from kb_builder.encode.sheet import SheetColumns, read_sheet, write_sheet

TEXTS = ["a cup", "木 \U0001f600", "", "a bowl", "a vase"]


def stored_texts(folder: Path) -> list[Path]:
    """The texts in two files, with an empty one between."""
    files = [folder / f"{number}.parquet" for number in range(3)]
    for path, some in zip(files, (TEXTS[:2], [], TEXTS[2:]), strict=True):
        pq.write_table(pa.table({"text": pa.array(some, pa.string())}), path, row_group_size=2)
    return files


def columns(folder: Path, *, files: bool = False, **changes: Any) -> SheetColumns:
    """A part of five texts: three to be encoded, two held by files."""
    texts = pa.array(["a vase", TEXTS[1], "a cup", "a lamp", "a desk"])
    table = {
        "id": pa.array(["r0", "r1", "r2", "r3", "r4"]),
        "group": pa.array(["g", "g", "g", "h", "h"]),
        "content": hash_texts(texts),
        "encode": pa.array([True, True, True, False, False]),
        "file": pa.array([2, 0, 0, None, None], pa.int32()),
        "place": pa.array([2, 1, 0, None, None], pa.int64()),
        "source": pa.nulls(5, pa.string()),
        "label": pa.nulls(5, pa.string()),
        "up": pa.nulls(5, pa.string()),
        "held_by": pa.array([None, None, None, 1, 0], pa.int32()),
        "lent_by": pa.nulls(5, pa.int32()),
    }
    about = {
        "index": 7,
        "folder": str(folder / "category_texts"),
        "number": 3,
        "fingerprint": "f",
        "identity": "i",
        "dim": 2,
        "dtype": "float16",
        "files": files,
    }
    held = [folder / "part-00000.parquet", folder / "own-00001.parquet"]
    return SheetColumns(pa.table(table | changes), about, stored_texts(folder), held)


def test_texts_are_read_where_they_stand(tmp_path: Path) -> None:
    """Of several files and row groups; what files hold stays with its file."""
    here = columns(tmp_path)
    write_sheet(here, tmp_path / "orders" / "sheet")
    there = read_sheet(tmp_path / "orders" / "sheet")
    assert list(there.items()) == list(here.sheet().items())
    assert [item.source for item in there.items()] == ["a vase", TEXTS[1], "a cup"]
    assert there.contents == [hash_text(each) for each in ("a vase", TEXTS[1], "a cup", "a lamp", "a desk")]
    assert there.held == {tmp_path / "part-00000.parquet": [4], tmp_path / "own-00001.parquet": [3]}
    assert (there.encode, there.lent, there.name) == ([0, 1, 2], {}, "part 3 of category_texts")
    assert here.keys_not_encoded() == there.keys[3:]


def test_samples_keep_their_labels_and_axes(tmp_path: Path) -> None:
    """A file's modality is its group, and the axis that points up travels with it."""
    here = columns(
        tmp_path,
        files=True,
        group=pa.array(["point", "image", "image", "image", "image"]),
        content=pa.array([hash_text(each) for each in "abcde"]),
        encode=pa.array([True, True, False, False, False]),
        file=pa.nulls(5, pa.int32()),
        source=pa.array(["/store/a.glb", "/store/b.png", None, None, None]),
        label=pa.array(["a.glb", "b.png", None, None, None]),
        up=pa.array(["y", None, None, None, None]),
        lent_by=pa.array([None, None, 5, None, None], pa.int32()),
    )
    write_sheet(here, tmp_path / "sheet")
    there = read_sheet(tmp_path / "sheet")
    assert there == here.sheet() and list(there.items()) == list(here.sheet().items())
    assert [(item.modality, item.label) for item in there.items()] == [("point", "a.glb"), ("image", "b.png")]
    assert (here.is_borrowing, there.lent, here.own().is_borrowing) == (True, {5: [2]}, False)
    assert (here.own().sheet().held, here.own().sheet().lent) == ({}, {})


def test_a_text_that_changed_meanwhile_is_refused_there_too(tmp_path: Path) -> None:
    """Its vector would be stored under the hash of another."""
    write_sheet(columns(tmp_path), tmp_path / "sheet")
    pq.write_table(pa.table({"text": ["a cup", "other"]}), tmp_path / "0.parquet", row_group_size=2)
    with pytest.raises(KnowledgeBaseError, match="descriptions changed while"):
        list(read_sheet(tmp_path / "sheet").items())


def test_a_sheet_that_is_gone_or_damaged_is_one_line(tmp_path: Path) -> None:
    """A node that does not see the store says which file it lacks."""
    for content in (None, b"", b"ARROW1 no more"):
        if content is not None:
            (tmp_path / "sheet").write_bytes(content)
        with pytest.raises(
            KnowledgeBaseError, match=r"sheet: an order that cannot be read .*again"
        ) as caught:
            read_sheet(tmp_path / "sheet")
        assert "\n" not in str(caught.value)
