"""A sheet read elsewhere asks for what it asked for here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_text
from kb_builder.encode.rows import StoredTexts
from kb_builder.encode.sheet import Sheet, read_sheet, write_sheet

TEXTS = ["a cup", "木 \U0001f600", "", "a bowl", "a vase"]


def stored_texts(folder: Path) -> StoredTexts:
    """The texts in two files, with an empty one between."""
    files = [folder / f"{number}.parquet" for number in range(3)]
    for path, some in zip(files, (TEXTS[:2], [], TEXTS[2:]), strict=True):
        pq.write_table(pa.table({"text": pa.array(some, pa.string())}), path, row_group_size=2)
    return StoredTexts(files, [0, 2, 2], np.array([4, 1, 0]))


def sheet(folder: Path, **changes: Any) -> Sheet:
    """A part of five texts: three to be encoded, two held by files."""
    texts = Sheet(
        index=7,
        folder=folder / "category_texts",
        number=3,
        fingerprint="f",
        identity="i",
        dim=2,
        dtype="float16",
        files=False,
        ids=["r0", "r1", "r2", "r3", "r4"],
        groups=["g", "g", "g", "h", "h"],
        contents=[hash_text(each) for each in ("a vase", TEXTS[1], "a cup", "a lamp", "a desk")],
        encode=[0, 1, 2],
        sources=stored_texts(folder),
        labels=[],
        ups=[],
        held={folder / "part-00000.parquet": [4], folder / "own-00001.parquet": [3]},
    )
    return replace(texts, **changes)


def test_texts_are_read_where_they_stand(tmp_path: Path) -> None:
    """Of several files and row groups; what files hold stays with its file."""
    here = sheet(tmp_path)
    write_sheet(here, tmp_path / "orders" / "sheet")
    there = read_sheet(tmp_path / "orders" / "sheet")
    assert list(there.items()) == list(here.items())
    assert [item.source for item in there.items()] == ["a vase", TEXTS[1], "a cup"]
    assert replace(there, sources=[]) == replace(here, sources=[])


def test_samples_keep_their_labels_and_axes(tmp_path: Path) -> None:
    """A file's modality is its group, and the axis that points up travels with it."""
    names = ["/store/a.glb", "/store/b.png"]
    here = sheet(
        tmp_path,
        files=True,
        groups=["point", "image", "image", "image", "image"],
        encode=[0, 1],
        sources=names,
        labels=["a.glb", "b.png"],
        ups=["y", None],
    )
    write_sheet(here, tmp_path / "sheet")
    there = read_sheet(tmp_path / "sheet")
    assert there == here and list(there.items()) == list(here.items())
    assert [item.modality for item in there.items()] == ["point", "image"]


def test_a_text_that_changed_meanwhile_is_refused_there_too(tmp_path: Path) -> None:
    """Its vector would be stored under the hash of another."""
    here = sheet(tmp_path)
    write_sheet(here, tmp_path / "sheet")
    pq.write_table(pa.table({"text": ["a cup", "other"]}), tmp_path / "0.parquet", row_group_size=2)
    with pytest.raises(KnowledgeBaseError, match="descriptions changed while"):
        list(read_sheet(tmp_path / "sheet").items())


def test_a_sheet_that_is_gone_or_damaged_is_one_line(tmp_path: Path) -> None:
    """A node that does not see the store says which file it lacks."""
    for content in (None, b"", b"PAR1 no more"):
        if content is not None:
            (tmp_path / "sheet").write_bytes(content)
        with pytest.raises(
            KnowledgeBaseError, match=r"sheet: an order that cannot be read .*again"
        ) as caught:
            read_sheet(tmp_path / "sheet")
        assert "\n" not in str(caught.value)
