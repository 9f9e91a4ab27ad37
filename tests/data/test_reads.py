"""What is read is noted with its content, and a note holds as long as reading again would give the same."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import files, reads
from data.reads import CHANGED_MEANWHILE, columns, hashed, hold, names, reading, recorded, remembered


def _replace(path: Path, text: str) -> None:
    """Another content of the same size, and the same time of change."""
    before = path.stat()
    assert before.st_size == len(text)
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_of_the_same_size_and_time_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a settled signature nor one that is too young hides that the content is another."""
    path = tmp_path / "a.txt"
    for settled in (10**18, -1):
        monkeypatch.setattr(files, "SETTLED_NS", settled)
        path.write_text("one", encoding="utf-8")
        with recorded() as recorder:
            reading(path).read_text(encoding="utf-8")
        notes = recorder.notes()
        assert hold(notes)
        _replace(path, "two")
        assert not hold(notes)
        _replace(path, "one")
        assert hold(notes)


def test_a_file_is_hashed_again_only_where_its_signature_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file that is untouched costs a look at its signature."""
    path = tmp_path / "a.txt"
    path.write_text("one", encoding="utf-8")
    read: list[Path] = []
    honest = reads.hash_file
    monkeypatch.setattr(files, "SETTLED_NS", -1)
    monkeypatch.setattr(reads, "hash_file", lambda path: read.append(path) or honest(path))
    with recorded() as recorder:
        assert hashed(path) == hashed(path) == honest(path)
    notes = recorder.notes()
    assert hold(notes)
    assert hold(notes)
    assert len(read) == 1
    path.touch()
    assert hold(notes)
    assert len(read) == 2


def test_that_a_file_is_not_there_is_noted(tmp_path: Path) -> None:
    """Who looked for a file in vain would find it now."""
    with recorded() as recorder:
        assert not reading(tmp_path / "heads").exists()
    notes = recorder.notes()
    assert [note.digest for note in notes] == [None]
    assert hold(notes)
    (tmp_path / "heads").write_text("x", encoding="utf-8")
    assert not hold(notes)


def test_of_a_table_the_columns_that_were_read_count(tmp_path: Path) -> None:
    """Another value in another column changes nothing, nor does another division into row groups."""
    path = tmp_path / "t.parquet"
    table = pa.table({"id": ["a", "b"], "split": ["train", None], "n": [1, 2]})
    pq.write_table(table, path)
    with recorded() as recorder:
        assert columns(path, ["id", "split", "later"]).column_names == ["id", "split"]
    notes = recorder.notes()
    pq.write_table(table.set_column(2, "n", [[3, 4]]), path, row_group_size=1)
    assert hold(notes)
    pq.write_table(table.append_column("later", [["x", "y"]]), path)
    assert not hold(notes)
    pq.write_table(table.set_column(1, "split", [["test", None]]), path)
    assert not hold(notes)
    path.unlink()
    assert not hold(notes)


def test_the_names_in_a_folder_count(tmp_path: Path) -> None:
    """One more file that fits is a change, one that does not fit is none."""
    (tmp_path / "a.parquet").touch()
    with recorded() as recorder:
        assert names(tmp_path, "*.parquet") == [tmp_path / "a.parquet"]
        assert names(tmp_path / "none", "*") == []
    notes = recorder.notes()
    (tmp_path / "b.txt").touch()
    assert hold(notes)
    (tmp_path / "b.parquet").touch()
    assert not hold(notes)


def test_a_file_that_changes_while_it_is_read_never_holds(tmp_path: Path) -> None:
    """What was read is not known then."""
    path = tmp_path / "a.txt"
    path.write_text("one", encoding="utf-8")
    with recorded() as recorder:
        reading(path)
        path.write_text("three", encoding="utf-8")
    notes = recorder.notes()
    assert [note.digest for note in notes] == [CHANGED_MEANWHILE]
    assert not hold(notes)


def test_threads_are_heard_and_what_is_ones_own_is_left_out(tmp_path: Path) -> None:
    """A stage's threads read for it; the files that it writes itself are no ground of its own."""
    paths = [tmp_path / f"{number}.txt" for number in range(4)]
    for path in paths:
        path.write_text("x", encoding="utf-8")
    with recorded() as recorder, ThreadPoolExecutor(2) as pool:
        list(pool.map(reading, paths))
    noted = [Path(note.path) for note in recorder.notes(own=lambda path: path.endswith("0.txt"))]
    assert noted == paths[1:]
    reading(tmp_path)  # nobody listens
    assert len(recorder.notes()) == 4


def test_what_is_kept_in_memory_notes_the_same_and_is_read_anew_when_its_files_change(tmp_path: Path) -> None:
    """An encoder that the process holds already was made from files all the same."""
    path = tmp_path / "weights"
    path.write_text("one", encoding="utf-8")
    read: list[str] = []

    @remembered
    def load(name: str) -> str:
        read.append(name)
        return reading(tmp_path / name).read_text(encoding="utf-8")

    with recorded() as first:
        assert load("weights") == "one"
    with recorded() as second:
        assert load("weights") == "one"
    assert read == ["weights"]
    assert [note.digest for note in first.notes()] == [note.digest for note in second.notes()]
    _replace(path, "two")
    assert load("weights") == "two"
