"""The embedding store: whole tables, read back by our reader, by plain pyarrow and by plain DuckDB."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_json, write_json
from kb_builder.store import shards
from kb_builder.store import table as table_module
from kb_builder.store.shards import inspect_shard, read_floats
from kb_builder.store.table import MANIFEST, open_table, part_paths, read_vectors, write_vectors

IDS = [f"row-{number:03d}" for number in range(60)]
GROUPS = [("dog", "cat", "bird")[number % 3] for number in range(60)]


def unit(seed: int, n: int = 60, dim: int = 24) -> np.ndarray:
    x_ND = np.random.default_rng(seed).normal(size=(n, dim))
    return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors_ND() -> np.ndarray:  # noqa: N802  (the fixture is named as the argument it gives)
    return unit(7)


@pytest.fixture(params=["float16", "float32"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, vectors_ND: np.ndarray) -> Path:
    write_vectors(tmp_path / "t", ids=IDS, groups=GROUPS, vectors_ND=vectors_ND, dtype=request.param)
    return tmp_path / "t"


def stored(folder: Path, vectors_ND: np.ndarray) -> np.ndarray:
    """What a table is to give back: rows sorted by group and id, rounded to its dtype."""
    order = sorted(range(60), key=lambda row: (GROUPS[row], IDS[row]))
    return vectors_ND[order].astype(open_table(folder).dtype).astype(np.float32)


def test_round_trip_is_exact(folder: Path, vectors_ND: np.ndarray) -> None:
    """What was written comes back, rounded to the stored dtype, sorted by group and id."""
    read = read_vectors(folder)
    assert read.ids == [name for _, name in sorted(zip(GROUPS, IDS, strict=True))]
    assert read.groups == sorted(GROUPS)
    assert read.vectors_ND.dtype == np.float32
    assert np.array_equal(read.vectors_ND, stored(folder, vectors_ND))


def test_one_group_is_read_alone(folder: Path, vectors_ND: np.ndarray) -> None:
    """A group's rows are those of the whole table; the table lists its groups and their sizes."""
    table = open_table(folder)
    assert table.groups == {"bird": 20, "cat": 20, "dog": 20}
    assert (len(table), table.dim) == (60, 24)
    cats = table.read("cat")
    assert cats.ids == [name for name, group in zip(IDS, GROUPS, strict=True) if group == "cat"]
    assert np.array_equal(cats.vectors_ND, stored(folder, vectors_ND)[20:40])
    with pytest.raises(KeyError):
        table.read("wolf")


def test_a_group_may_lie_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows come together, in the order of their ids."""
    monkeypatch.setattr("kb_builder.store.table._ROWS_PER_SHARD", 7)
    vectors_ND = unit(3)
    write_vectors(tmp_path / "t", ids=IDS, groups=["a"] * 60, vectors_ND=vectors_ND, dtype="float32")
    assert len(part_paths(tmp_path / "t")) == 9
    read = open_table(tmp_path / "t").read("a")
    assert read.ids == IDS
    assert np.array_equal(read.vectors_ND, vectors_ND)


def test_several_groups_are_read_as_each_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order asked for: neighbours in a shard, by one read, groups apart, and those in two shards."""
    monkeypatch.setattr(table_module, "_ROWS_PER_SHARD", 25)
    write_vectors(tmp_path / "t", ids=IDS, groups=GROUPS, vectors_ND=unit(3))
    table = open_table(tmp_path / "t")
    reads: list[str] = []

    def noted(path: Path, *rest: Any) -> Any:
        reads.append(path.name)
        return read_floats(path, *rest)

    monkeypatch.setattr(table_module, "read_floats", noted)
    for asked in ([], ["cat"], ["bird", "cat", "dog"], ["dog", "bird"], ["cat", "dog"]):
        found = table.read_many(asked)
        count = len(reads)
        assert [set(each.groups) for each in found] == [{group} for group in asked]
        for group, each in zip(asked, found, strict=True):
            alone = table.read(group)
            assert each.ids == alone.ids
            assert np.array_equal(each.vectors_ND, alone.vectors_ND)
        if asked == ["bird", "cat", "dog"]:
            assert count == len(table.shards) == 3
        reads.clear()


def test_duckdb_finds_the_nearest_without_our_code(folder: Path, vectors_ND: np.ndarray) -> None:
    """DuckDB answers a nearest-neighbour query on the files alone, half floats too, as NumPy does."""
    query = f"""
        SELECT a.id, list_inner_product(a.vector, b.vector) AS similarity
        FROM '{folder}/*.parquet' a, (SELECT vector FROM '{folder}/*.parquet' WHERE id = 'row-017') b
        ORDER BY similarity DESC LIMIT 5"""
    found = duckdb.sql(query).fetchall()
    cosines = vectors_ND @ vectors_ND[17]
    nearest = np.argsort(-cosines)[:5]
    assert [name for name, _ in found] == [IDS[row] for row in nearest]
    np.testing.assert_allclose([cosine for _, cosine in found], cosines[nearest], atol=1e-3)


def test_plain_pyarrow_reads_it(folder: Path) -> None:
    """pyarrow sees four non-null columns, the vector of fixed size."""
    (path,) = part_paths(folder)
    table = pq.read_table(path)
    assert table.schema.names == ["id", "group", "content", "vector"]
    assert table.schema.field("vector").type.list_size == 24
    assert not any(field.nullable for field in table.schema)


def test_an_empty_table_keeps_its_dimension(tmp_path: Path) -> None:
    """An empty table is a valid table."""
    write_vectors(tmp_path / "t", ids=[], groups=[], vectors_ND=np.zeros((0, 5), np.float32))
    read = read_vectors(tmp_path / "t")
    assert (read.ids, read.vectors_ND.shape, open_table(tmp_path / "t").dim) == ([], (0, 5), 5)


def test_a_folder_without_a_manifest_is_no_table(folder: Path) -> None:
    """Files that no manifest names are unfinished; the message says what to run."""
    (folder / MANIFEST).unlink()
    assert part_paths(folder) == []
    with pytest.raises(KnowledgeBaseError, match="unibind encode"):
        read_vectors(folder)


def test_a_replaced_table_leaves_no_file_of_the_old(folder: Path) -> None:
    """Writing again takes the place of all that was there."""
    write_vectors(folder, ids=["z"], groups=["ant"], vectors_ND=unit(1, 1))
    assert read_vectors(folder).ids == ["z"]
    assert [path.name for path in folder.glob("*.parquet")] == [path.name for path in part_paths(folder)]


def test_an_unfinished_file_is_not_read(folder: Path) -> None:
    """A part that the manifest does not name is no part of the table, not even a damaged one."""
    before = read_vectors(folder).ids
    (folder / "part-00009-deadbeef.parquet").write_bytes(b"half a file")
    assert read_vectors(folder).ids == before


def test_a_reader_during_writes_sees_one_table_or_another(tmp_path: Path) -> None:
    """While two tables replace each other without end, every read is one of the two, whole."""
    tables = [(["a", "b"], unit(1, 2)), ([f"c{n}" for n in range(40)], unit(2, 40))]
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            ids, vectors_ND = tables[number % 2]
            write_vectors(
                tmp_path / "t", ids=ids, groups=["g"] * len(ids), vectors_ND=vectors_ND, dtype="float32"
            )
            number += 1

    ids, vectors_ND = tables[0]
    write_vectors(tmp_path / "t", ids=ids, groups=["g"] * 2, vectors_ND=vectors_ND, dtype="float32")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(60):
            read = read_vectors(tmp_path / "t")
            expected = tables[0] if len(read.ids) == 2 else tables[1]
            assert read.ids == sorted(expected[0])
            order = np.argsort(expected[0])
            assert np.array_equal(read.vectors_ND, expected[1][order])
    finally:
        done.set()
        writer.join()


def test_a_table_that_was_replaced_and_put_back_is_read_again(
    folder: Path, vectors_ND: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard is gone for a moment, and afterwards only the manifest's stamp shows it."""
    before, dtype = read_vectors(folder), open_table(folder).dtype
    tried: list[Path] = []

    def read_late(path: Path, *rest: Any) -> None:
        tried.append(path)
        if len(tried) > 1:
            read_floats(path, *rest)
            return
        write_vectors(folder, ids=["x"], groups=["g"], vectors_ND=unit(3, 1))
        try:
            read_floats(path, *rest)
        finally:
            write_vectors(
                folder, ids=before.ids, groups=before.groups, vectors_ND=before.vectors_ND, dtype=dtype
            )

    monkeypatch.setattr("kb_builder.store.table.read_floats", read_late)
    read = read_vectors(folder)
    assert len(tried) == 2
    assert (read.ids, read.groups) == (before.ids, before.groups)
    assert np.array_equal(read.vectors_ND, before.vectors_ND)


def test_a_shard_that_a_writer_deletes_while_it_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened once: whoever has it open sees it whole. One gone before is damage, told by name."""
    (path,) = part_paths(folder)
    before = inspect_shard(path).shard
    layout = shards._layout

    def deleted_meanwhile(path: Path, schema: Any) -> Any:
        path.unlink()
        return layout(path, schema)

    monkeypatch.setattr(shards, "_layout", deleted_meanwhile)
    assert inspect_shard(path).shard == before
    with pytest.raises(KnowledgeBaseError, match=path.name):
        inspect_shard(path)


def test_a_truncated_file_is_refused_by_name(folder: Path) -> None:
    """Half a file is damaged, not short."""
    (path,) = part_paths(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(KnowledgeBaseError, match=rf"{path.name}: damaged"):
        read_vectors(folder)


@pytest.mark.parametrize("place", range(40, 4000, 173))
def test_a_flipped_bit_never_changes_what_is_read(tmp_path: Path, place: int) -> None:
    """Wherever in a file a bit turns, the reader refuses it by name or gives exactly what was written."""
    folder, vectors_ND = tmp_path / "t", unit(4)
    write_vectors(folder, ids=IDS, groups=GROUPS, vectors_ND=vectors_ND)
    before = read_vectors(folder)
    (path,) = part_paths(folder)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 16
    path.write_bytes(content)
    try:
        read = read_vectors(folder)
    except KnowledgeBaseError as error:
        assert path.name in str(error)
    else:
        assert read.ids == before.ids and read.groups == before.groups
        assert np.array_equal(read.vectors_ND, before.vectors_ND)


def test_a_flipped_bit_among_the_vectors_is_refused_by_name(folder: Path, vectors_ND: np.ndarray) -> None:
    """The checksum in the manifest notices it, in the whole and in the group alone."""
    (path,) = part_paths(folder)
    content = bytearray(path.read_bytes())
    dtype = open_table(folder).dtype
    content[content.index(stored(folder, vectors_ND)[20].astype(dtype).tobytes())] ^= 1
    path.write_bytes(content)
    for read in (lambda: read_vectors(folder), lambda: open_table(folder).read("cat")):
        with pytest.raises(KnowledgeBaseError, match=rf"{path.name}: damaged \(.*'cat'.* checksum"):
            read()
    assert len(open_table(folder).read("dog").ids) == 20


def test_a_shard_of_another_dimension_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    """A shard of other vectors under the listed name is refused, with the difference."""
    write_vectors(tmp_path / "other", ids=["z"], groups=["a"], vectors_ND=unit(1, 1, 8))
    (path,) = part_paths(folder)
    shutil.copy(part_paths(tmp_path / "other")[0], path)
    with pytest.raises(KnowledgeBaseError, match=r"part-.*: damaged \(8 dimensions, but its table has 24\)"):
        open_table(folder).read_vectors()


def test_a_shard_of_another_encoder_is_refused_by_name(tmp_path: Path) -> None:
    """Vectors of equal shape by another encoder are recognised by the identity in their file."""
    for name in ("one", "two"):
        write_vectors(
            tmp_path / name,
            ids=IDS,
            groups=GROUPS,
            vectors_ND=unit(ord(name[1])),
            encoder=name,
            dtype="float32",
        )
    (path,) = part_paths(tmp_path / "one")
    shutil.copy(part_paths(tmp_path / "two")[0], path)
    with pytest.raises(KnowledgeBaseError, match=rf"{path.name}: damaged \(made by another encoder"):
        open_table(tmp_path / "one").read_vectors()


def test_a_table_of_another_encoder_is_refused_by_name(tmp_path: Path) -> None:
    """A table copied into the folder of another encoder does not pass for that one's."""
    write_vectors(tmp_path / "t", ids=IDS, groups=GROUPS, vectors_ND=unit(1), encoder="a" * 64)
    write_json(tmp_path / "encoder.json", {"identity": "b" * 64, "dim": 24})
    with pytest.raises(KnowledgeBaseError, match="made by another encoder"):
        open_table(tmp_path / "t")


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    """A missing shard that the manifest lists is an error, not fewer rows."""
    (path,) = part_paths(folder)
    path.unlink()
    with pytest.raises(KnowledgeBaseError, match=path.name):
        read_vectors(folder)


@pytest.mark.parametrize("change", [("dim", 23), ("dtype", "float64"), ("shards", [])], ids=str)
def test_a_changed_manifest_is_refused(folder: Path, change: tuple[str, object]) -> None:
    """A manifest that does not fit its own checksum is damaged, and says so."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, change[0]: change[1]}))
    with pytest.raises(KnowledgeBaseError, match=r"manifest.json: damaged"):
        open_table(folder)


def test_a_later_format_is_not_guessed_at(folder: Path) -> None:
    """A manifest of a format to come is refused."""
    path = folder / MANIFEST
    manifest = {**json.loads(path.read_text()), "format": 99}
    del manifest["sha256"]
    path.write_text(json.dumps({**manifest, "sha256": hash_json(manifest)}))
    with pytest.raises(KnowledgeBaseError, match="format 99"):
        open_table(folder)


def test_nothing_is_written_where_a_row_is_unfit(tmp_path: Path) -> None:
    """A refused row leaves neither file nor manifest."""
    bad_ND = unit(1)
    bad_ND[3, 3] = np.nan
    with pytest.raises(KnowledgeBaseError, match="row-003"):
        write_vectors(tmp_path / "t", ids=IDS, groups=GROUPS, vectors_ND=bad_ND)
    assert not list(tmp_path.rglob("*.*"))
