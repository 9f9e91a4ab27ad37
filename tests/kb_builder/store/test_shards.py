"""One file of the store: its layout, byte by byte, and what it refuses."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.store import shards
from kb_builder.store.shards import RowGroup, Shard, inspect_shard, read_floats, read_names, write_shard

IDS = [f"row-{number:03d}" for number in range(60)]
GROUPS = [("dog", "cat", "bird")[number % 3] for number in range(60)]
CONTENTS = [f"{number:064x}" for number in range(60)]
ORDER = sorted(range(60), key=lambda row: (GROUPS[row], IDS[row]))


def unit(seed: int = 7, n: int = 60, dim: int = 24) -> np.ndarray:
    x_ND = np.random.default_rng(seed).normal(size=(n, dim))
    return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)


def write(path: Path, vectors_ND: np.ndarray, **change: Any) -> Shard:
    given: dict[str, Any] = {
        "ids": IDS,
        "groups": GROUPS,
        "contents": CONTENTS,
        "dtype": "float16",
        "metadata": {"note": "\u00fc1"},
    }
    return write_shard(path, vectors_ND=vectors_ND, **(given | change))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_group_is_one_run_of_bytes(tmp_path: Path, dtype: Any) -> None:
    """At the noted place lie a group's vectors, little-endian and without gaps, with the noted CRC-32."""
    path, vectors_ND = tmp_path / "s.parquet", unit()
    shard = write(path, vectors_ND, dtype=dtype)
    assert [group.group for group in shard.row_groups] == ["bird", "cat", "dog"]
    content = path.read_bytes()
    assert shard.bytes == len(content)
    for group in shard.row_groups:
        rows = [row for row in ORDER if GROUPS[row] == group.group]
        expected = vectors_ND[rows].astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        assert group.offset is not None
        assert content[group.offset : group.offset + len(expected)] == expected
        assert group.crc32 == crc32(expected)


def test_other_readers_find_plain_columns_and_checksums(tmp_path: Path) -> None:
    """Uncompressed, PLAIN, no dictionary, no statistics on vectors; groups can be skipped by theirs."""
    write(tmp_path / "s.parquet", unit())
    metadata = pq.ParquetFile(tmp_path / "s.parquet").metadata
    assert metadata.num_row_groups == 3
    vector = metadata.row_group(0).column(3)
    assert (vector.compression, vector.is_stats_set, vector.has_dictionary_page) == (
        "UNCOMPRESSED",
        False,
        False,
    )
    assert "PLAIN" in vector.encodings
    assert [metadata.row_group(n).column(1).statistics.min for n in range(3)] == ["bird", "cat", "dog"]


def test_the_order_of_rows_does_not_change_the_bytes(tmp_path: Path) -> None:
    """The same rows in another order give the same file."""
    vectors_ND = unit()
    write(tmp_path / "one.parquet", vectors_ND)
    order = np.random.default_rng(1).permutation(60)
    shuffled = {
        name: [column[row] for row in order]
        for name, column in {"ids": IDS, "groups": GROUPS, "contents": CONTENTS}.items()
    }
    write(tmp_path / "two.parquet", vectors_ND[order], **shuffled)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_inspection_gives_all_that_was_written(tmp_path: Path) -> None:
    """Ids, groups, contents, vectors as stored, metadata, and the shard as its writer described it."""
    vectors_ND = unit()
    shard = write(tmp_path / "s.parquet", vectors_ND)
    held = inspect_shard(tmp_path / "s.parquet")
    assert held.shard == shard
    assert held.ids.to_pylist() == [IDS[row] for row in ORDER]
    assert held.groups.to_pylist() == [GROUPS[row] for row in ORDER]
    assert held.contents.to_pylist() == [CONTENTS[row] for row in ORDER]
    assert held.stored_ND.dtype == np.float16
    assert np.array_equal(held.stored_ND, vectors_ND[ORDER].astype(np.float16))
    assert held.metadata == {"note": "\u00fc1"}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_run_that_is_not_found_is_read_through_pyarrow(tmp_path: Path, dtype: Any) -> None:
    """Without a place the same vectors come, checked by the same sum."""
    path = tmp_path / "s.parquet"
    shard = write(path, unit(), dtype=dtype)
    direct_ND, through_ND = np.empty((60, 24), np.float32), np.empty((60, 24), np.float32)
    read_floats(path, shard, 0, 3, direct_ND, dtype)
    unplaced = replace(shard, row_groups=tuple(replace(group, offset=None) for group in shard.row_groups))
    read_floats(path, unplaced, 0, 3, through_ND, dtype)
    assert np.array_equal(direct_ND, through_ND)
    wrong = replace(unplaced, row_groups=tuple(replace(group, crc32=1) for group in shard.row_groups))
    with pytest.raises(KnowledgeBaseError, match="fail their checksum"):
        read_floats(path, replace(wrong), 0, 3, through_ND, dtype)


def test_a_compressed_file_has_no_place_for_its_vectors(tmp_path: Path) -> None:
    """The same table written by other hands, compressed, is seen to have none, not guessed at."""
    path = tmp_path / "s.parquet"
    write(path, unit())
    pq.write_table(pq.read_table(path), path, compression="zstd")
    assert {group.offset for group in inspect_shard(path).shard.row_groups} == {None}


def test_large_groups_are_cut_where_pyarrow_ends_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group beyond a page's rows becomes several row groups, each in one run."""
    monkeypatch.setattr(shards, "_PAGE_ROWS", 7)
    shard = write(tmp_path / "s.parquet", unit())
    assert [group.rows for group in shard.row_groups] == [7, 7, 6] * 3
    assert all(group.offset is not None for group in shard.row_groups)


def test_pyarrow_does_end_pages_at_that_number(tmp_path: Path) -> None:
    """45,000 rows of one group: three runs, none of them broken by a page's end."""
    n = 45_000
    names = [f"{number:05d}" for number in range(n)]
    vectors_ND = np.tile(np.eye(2, dtype=np.float32), (n // 2, 1))
    shard = write(
        tmp_path / "s.parquet", vectors_ND, ids=names, groups=["g"] * n, contents=[""] * n, dtype="float32"
    )
    assert [group.rows for group in shard.row_groups] == [20_000, 20_000, 5_000]
    assert all(group.offset is not None for group in shard.row_groups)


def test_torch_and_numpy_widen_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half floats become the same floats by either way, subnormal ones too."""
    vectors_ND = np.concatenate([np.full((60, 1), 6e-8, np.float32), unit(dim=23)], axis=1)
    path = tmp_path / "s.parquet"
    shard = write(path, vectors_ND)
    by_torch_ND, by_numpy_ND = np.empty((60, 24), np.float32), np.empty((60, 24), np.float32)
    pytest.importorskip("torch")
    read_floats(path, shard, 0, 3, by_torch_ND, "float16")
    monkeypatch.delitem(sys.modules, "torch")
    read_floats(path, shard, 0, 3, by_numpy_ND, "float16")
    assert np.array_equal(by_torch_ND, by_numpy_ND)
    assert (by_torch_ND[:, 0] > 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    """NaN or infinity names its row and leaves no file."""
    vectors_ND = unit()
    vectors_ND[41, 3] = value
    with pytest.raises(KnowledgeBaseError, match="'row-041' holds NaN or infinite"):
        write(tmp_path / "s.parquet", vectors_ND)
    assert not list(tmp_path.iterdir())


def test_rows_that_are_not_of_unit_length_are_refused_by_name(tmp_path: Path) -> None:
    """Encoders give unit rows; a row of zeros, which points nowhere, is allowed."""
    vectors_ND = unit()
    vectors_ND[5] = 0
    write(tmp_path / "s.parquet", vectors_ND)
    vectors_ND[17] *= 3
    with pytest.raises(KnowledgeBaseError, match="'row-017' has length 3, not 1"):
        write(tmp_path / "t.parquet", vectors_ND)


def test_an_id_that_comes_twice_is_refused_by_name(tmp_path: Path) -> None:
    """An id is a key."""
    with pytest.raises(KnowledgeBaseError, match="duplicate id 'row-001'"):
        write(tmp_path / "s.parquet", unit(), ids=[*IDS[:59], "row-001"])


def test_another_table_is_no_shard(tmp_path: Path) -> None:
    """Parquet of other columns is refused."""
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), tmp_path / "s.parquet")
    with pytest.raises(KnowledgeBaseError, match="not a shard of the embedding store"):
        inspect_shard(tmp_path / "s.parquet")


def test_arguments_that_do_not_fit_are_our_own_bug(tmp_path: Path) -> None:
    """Counts that differ raise ValueError."""
    with pytest.raises(ValueError, match="do not fit"):
        write(tmp_path / "s.parquet", unit(), ids=IDS[:-1])


def test_a_shard_counts_its_rows() -> None:
    """The rows of a shard are those of its row groups."""
    groups = (RowGroup("a", 3, 100, 0), RowGroup("b", 4, None, 0))
    assert Shard("x", 10, groups).rows == 7


def test_a_footer_is_read_once_and_again_when_the_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading its groups one by one does not parse the same footer each time; another file has another."""
    parsed: list[Path] = []
    read_metadata = pq.read_metadata

    def counted(path: Path) -> Any:
        parsed.append(path)
        return read_metadata(path)

    monkeypatch.setattr(pq, "read_metadata", counted)
    path = tmp_path / "x.parquet"
    for ids in (["a", "b"], ["c", "dd", "e"]):
        write_shard(
            path,
            ids=ids,
            groups=ids,
            contents=[""] * len(ids),
            vectors_ND=np.eye(3, 4, dtype=np.float32)[: len(ids)],
            dtype="float32",
            metadata={},
        )
        for number, name in enumerate(ids):
            assert read_names(path, [number]).column("id").to_pylist() == [name]
    assert parsed == [path, path]


def test_a_column_whose_name_is_damaged_is_named(tmp_path: Path) -> None:
    """Every single byte of the footer's names made invalid UTF-8: one error with the file's name."""
    path = tmp_path / "part-00000-aaaaaaaa.parquet"
    write(path, unit())
    sound = path.read_bytes()
    at = sound.rfind(b"vector")
    while at >= 0:
        path.write_bytes(sound[:at] + b"\xe9" + sound[at + 1 :])
        with suppress(KnowledgeBaseError):  # a byte that is not read does no harm
            inspect_shard(path)
        with suppress(KnowledgeBaseError):
            read_names(path, [0])
        at = sound.rfind(b"vector", 0, at)
