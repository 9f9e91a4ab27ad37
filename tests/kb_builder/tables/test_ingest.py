"""kb_builder.tables.ingest: real files in, tables out; what cannot be used is rejected by name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import KnowledgeBaseError, ManifestError
from data.manifest.read import Manifest
from data.reads import recorded
from data.sample import Category, Sample
from kb_builder.tables import hashing
from kb_builder.tables.ingest import ingest
from kb_builder.tables.schemas import CATEGORIES, REJECTS, SAMPLES, read_rows
from tests.elsewhere import Elsewhere, all_files

CATEGORIES_OF_TEST = (Category("dog", "Dog", ("hound",), "animal", "barks"), Category("cat", "cat"))


def manifest(root: Path, *samples: Sample) -> Manifest:
    return Manifest(root, samples, CATEGORIES_OF_TEST)


def test_files_become_rows(tmp_path: Path) -> None:
    """Every sample has its hash and size, sorted by id; given descriptions and categories are kept."""
    (tmp_path / "a.png").write_bytes(b"aaa")
    (tmp_path / "b.wav").write_bytes(b"bb")
    samples = (
        Sample("z", "image", "a.png", "train", "dog", "o1", "a dog"),
        Sample("y", "audio", "b.wav"),
    )
    counts = ingest(manifest(tmp_path, *samples), tmp_path / "kb")
    assert counts == {
        "samples": 2,
        "categories": 2,
        "categories_without_samples": 1,
        "rejected": 0,
        "given_descriptions": 1,
        "files_in_train_and_elsewhere": 0,
        "files_of_two_categories": 0,
    }
    rows = read_rows(tmp_path / "kb" / "samples.parquet")
    assert [row["sample_id"] for row in rows] == ["y", "z"]
    assert rows[1] == {
        "sample_id": "z",
        "object_id": "o1",
        "modality": "image",
        "uri": "a.png",
        "category_id": "dog",
        "split": "train",
        "sha256": hashlib.sha256(b"aaa").hexdigest(),
        "bytes": 3,
        "more_category_ids": None,
        "up": None,
    }
    assert read_rows(tmp_path / "kb" / "given_descriptions.parquet") == [{"sample_id": "z", "text": "a dog"}]
    categories = read_rows(tmp_path / "kb" / "categories.parquet")
    assert [row["category_id"] for row in categories] == ["cat", "dog"]
    assert categories[1]["aliases"] == ["hound"]


def test_unusable_files_are_rejected_one_by_one(tmp_path: Path) -> None:
    """Missing, empty, not plain, unreadable and outside: each has its reason, and the others go on."""
    (tmp_path / "good.png").write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/etc/hostname")
    names = ["good", "empty", "folder", "pipe", "link", "gone", "n" * 300]
    samples = [Sample(name, "image", f"{name}.png", description="x") for name in names]
    counts = ingest(manifest(tmp_path, *samples), tmp_path / "kb")
    assert (counts["samples"], counts["rejected"], counts["given_descriptions"]) == (1, 6, 1)
    rejects = {row["sample_id"]: row["reason"] for row in read_rows(tmp_path / "kb" / "rejects")}
    assert "empty file" in rejects["empty"]
    assert "not a plain file" in rejects["folder"]
    assert "not a plain file" in rejects["pipe"]
    assert "leads outside" in rejects["link"]
    assert "no such file" in rejects["gone"]
    assert "File name too long" in rejects["n" * 300]


def test_a_second_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Neither the threads' order nor the manifest's decides what is written."""
    for number in range(50):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    samples = [Sample(str(number), "image", f"{number}.png") for number in range(50)]
    ingest(manifest(tmp_path, *samples), tmp_path / "one")
    ingest(manifest(tmp_path, *reversed(samples)), tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.parquet"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_files_hashed_elsewhere_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order: tables, rejects, and what was read; a worker that does not see the files is an error."""
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    (tmp_path / "5.png").unlink()
    (tmp_path / "6.png").write_bytes(b"")
    samples = [Sample(str(number), "image", f"{number}.png", description="long") for number in range(20)]
    given = manifest(tmp_path, *samples)
    monkeypatch.setattr(hashing, "AT_A_TIME", 3)
    engine = Elsewhere(seed=2)
    read = []
    for name, carry in (("here", None), ("there", engine.map)):
        with recorded() as recorder:
            ingest(given, tmp_path / name, carry=carry)
        read.append({(note.path, note.digest) for note in recorder.notes()})
    assert all_files(tmp_path / "there") == all_files(tmp_path / "here")
    assert read[0] == read[1] and len(read[0]) == 20
    assert len(engine.orders) == 7 and engine.orders[0].name == "3 samples from '0'"
    assert all(sample.description is None for order in engine.orders for sample in order.samples)
    gone = replace(given, root=tmp_path / "gone")
    with pytest.raises(KnowledgeBaseError, match="under the same path"):
        ingest(gone, tmp_path / "kb", carry=engine.map)


def test_copies_in_train_and_elsewhere_are_counted(tmp_path: Path) -> None:
    """Two files with one content, one of them for training, are no independent evidence."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(b"same" if name in "ab" else b"other")
    splits = {"a": "train", "b": "test", "c": "val", "d": "test"}
    samples = [Sample(name, "image", f"{name}.png", split) for name, split in splits.items()]  # type: ignore[arg-type]
    assert ingest(manifest(tmp_path, *samples), tmp_path / "kb")["files_in_train_and_elsewhere"] == 1


def test_copies_of_two_categories_are_counted(tmp_path: Path) -> None:
    """The same content under two names and labels is one of them at most; a label in common is none."""
    for name in ("a", "b", "c", "d", "e", "f"):
        (tmp_path / f"{name}.png").write_bytes(b"same" if name in "abc" else b"other")
    categories = {"a": ("dog",), "b": ("cat",), "c": ("cat",), "d": ("dog", "cat"), "e": ("cat",), "f": ()}
    samples = [
        Sample(name, "image", f"{name}.png", category_id=ids[0] if ids else None, more_category_ids=ids[1:])
        for name, ids in categories.items()
    ]
    assert ingest(manifest(tmp_path, *samples), tmp_path / "kb")["files_of_two_categories"] == 1


def test_nothing_usable_is_an_error_that_says_where_was_looked(tmp_path: Path) -> None:
    """A wrong root would reject every sample: that stops the run with the first reason."""
    with pytest.raises(ManifestError, match=r"not one of the 1 samples.*a\.png: no such file"):
        ingest(manifest(tmp_path, Sample("a", "image", "a.png")), tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_empty_tables_keep_their_schema(tmp_path: Path) -> None:
    """Tables without rows have their columns all the same."""
    import pyarrow.parquet as pq

    (tmp_path / "a.png").write_bytes(b"x")
    ingest(manifest(tmp_path, Sample("a", "image", "a.png")), tmp_path / "kb")
    for name, schema in {"rejects/ingest": REJECTS, "samples": SAMPLES, "categories": CATEGORIES}.items():
        assert pq.read_schema(tmp_path / "kb" / f"{name}.parquet").names == schema.names
