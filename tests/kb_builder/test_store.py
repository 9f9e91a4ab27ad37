"""The embedding store, read back by our reader, by plain pyarrow and by plain DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.store import read_metadata, read_part, read_vectors, write_vectors

IDS = [f"row-{number:03d}" for number in range(60)]
GROUPS = [("dog", "cat", "bird")[number % 3] for number in range(60)]


@pytest.fixture
def vectors_ND() -> np.ndarray:  # noqa: N802  (the fixture is named as the argument it gives)
    return np.random.default_rng(7).normal(size=(60, 24)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, vectors_ND: np.ndarray) -> Path:
    write_vectors(tmp_path / "part-00000.parquet", ids=IDS, groups=GROUPS, vectors_ND=vectors_ND)
    return tmp_path


def expected_order() -> list[int]:
    return sorted(range(60), key=lambda row: (GROUPS[row], IDS[row]))


def test_round_trip_is_exact(folder: Path, vectors_ND: np.ndarray) -> None:
    """What was written comes back bit for bit, sorted by group and id."""
    read = read_vectors(folder)
    order = expected_order()
    assert read.ids == [IDS[row] for row in order]
    assert read.groups == [GROUPS[row] for row in order]
    assert read.vectors_ND.dtype == np.float32
    assert read.vectors_ND.tobytes() == vectors_ND[order].tobytes()


def test_order_of_rows_does_not_change_the_bytes(folder: Path, vectors_ND: np.ndarray) -> None:
    """The same rows in another order give the same file."""
    shuffled = np.random.default_rng(1).permutation(60)
    write_vectors(
        folder / "other.parquet",
        ids=[IDS[row] for row in shuffled],
        groups=[GROUPS[row] for row in shuffled],
        vectors_ND=vectors_ND[shuffled],
    )
    assert (folder / "other.parquet").read_bytes() == (folder / "part-00000.parquet").read_bytes()


def test_each_group_is_one_row_group_of_contiguous_floats(folder: Path, vectors_ND: np.ndarray) -> None:
    """A group's floats lie in one piece in the file, little-endian, uncompressed, without statistics."""
    path = folder / "part-00000.parquet"
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_row_groups == 3
    column = metadata.row_group(0).column(2)
    assert (column.compression, column.is_stats_set, column.has_dictionary_page) == (
        "UNCOMPRESSED",
        False,
        False,
    )
    assert "PLAIN" in column.encodings
    birds = [row for row in expected_order() if GROUPS[row] == "bird"]
    assert vectors_ND[birds].astype("<f4").tobytes() in path.read_bytes()


def test_duckdb_finds_the_nearest_without_our_code(folder: Path, vectors_ND: np.ndarray) -> None:
    """DuckDB answers a nearest-neighbour query on the file alone, as NumPy does."""
    query = f"""
        SELECT a.id, list_cosine_similarity(a.vector, b.vector) AS similarity
        FROM '{folder}/*.parquet' a, (SELECT vector FROM '{folder}/*.parquet' WHERE id = 'row-017') b
        ORDER BY similarity DESC LIMIT 5"""
    found = duckdb.sql(query).fetchall()
    unit = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    cosines = unit @ unit[17]
    nearest = np.argsort(-cosines)[:5]
    assert [name for name, _ in found] == [IDS[row] for row in nearest]
    np.testing.assert_allclose([cosine for _, cosine in found], cosines[nearest], atol=1e-5)


def test_plain_pyarrow_reads_it(folder: Path) -> None:
    """pyarrow sees three non-null columns, the vector of fixed size."""
    table = pq.read_table(folder / "part-00000.parquet")
    assert table.schema.names == ["id", "group", "vector"]
    assert table.schema.field("vector").type.list_size == 24
    assert not any(field.nullable for field in table.schema)


def test_parts_are_read_together_in_name_order(folder: Path, vectors_ND: np.ndarray) -> None:
    """A folder's rows are those of all its parts."""
    write_vectors(folder / "part-00001.parquet", ids=["z"], groups=["ant"], vectors_ND=vectors_ND[:1])
    read = read_vectors(folder)
    assert read.ids[-1] == "z"
    assert read.vectors_ND.shape == (61, 24)


def test_no_rows_still_tell_the_dimension(tmp_path: Path) -> None:
    """An empty part is a valid part."""
    write_vectors(tmp_path / "part-00000.parquet", ids=[], groups=[], vectors_ND=np.zeros((0, 5), np.float32))
    read = read_vectors(tmp_path)
    assert (read.ids, read.vectors_ND.shape) == ([], (0, 5))


def test_metadata_comes_back(tmp_path: Path, vectors_ND: np.ndarray) -> None:
    """A part carries what its writer noted about it."""
    path = tmp_path / "part-00000.parquet"
    write_vectors(path, ids=IDS, groups=GROUPS, vectors_ND=vectors_ND, metadata={"fingerprint": "ü1"})
    assert read_metadata(path) == {"fingerprint": "ü1"}
    assert len(read_part(path).ids) == 60


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, vectors_ND: np.ndarray, value: float
) -> None:
    """NaN or infinity names its row and leaves no file."""
    vectors_ND[41, 3] = value
    with pytest.raises(KnowledgeBaseError, match="row-041"):
        write_vectors(tmp_path / "part-00000.parquet", ids=IDS, groups=GROUPS, vectors_ND=vectors_ND)
    assert not list(tmp_path.iterdir())


def test_infinities_of_both_signs_are_refused(tmp_path: Path, vectors_ND: np.ndarray) -> None:
    """Two infinities in a row do not cancel out."""
    vectors_ND[5, :2] = np.inf, -np.inf
    with pytest.raises(KnowledgeBaseError, match="row-005"):
        write_vectors(tmp_path / "part-00000.parquet", ids=IDS, groups=GROUPS, vectors_ND=vectors_ND)


def test_duplicate_ids_are_refused_by_name(folder: Path, vectors_ND: np.ndarray) -> None:
    """An id that comes twice, in one part or in two, is named."""
    with pytest.raises(KnowledgeBaseError, match="'row-001' comes twice"):
        write_vectors(
            folder / "part-00009.parquet", ids=["row-001"] * 2, groups=["a", "b"], vectors_ND=vectors_ND[:2]
        )
    write_vectors(folder / "part-00001.parquet", ids=["row-001"], groups=["a"], vectors_ND=vectors_ND[:1])
    with pytest.raises(KnowledgeBaseError, match="'row-001' comes twice"):
        read_vectors(folder)


def test_another_dimension_is_refused_by_name(folder: Path) -> None:
    """Parts of different dimension do not mix."""
    write_vectors(
        folder / "part-00001.parquet", ids=["z"], groups=["a"], vectors_ND=np.ones((1, 8), np.float32)
    )
    with pytest.raises(
        KnowledgeBaseError, match=r"part-00001.parquet: 8 dimensions, but part-00000.parquet has 24"
    ):
        read_vectors(folder)


def test_a_truncated_file_is_refused_by_name(folder: Path) -> None:
    """Half a file is damaged, not short."""
    path = folder / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(KnowledgeBaseError, match=r"part-00000.parquet: damaged"):
        read_vectors(folder)


def test_one_flipped_bit_is_noticed(folder: Path, vectors_ND: np.ndarray) -> None:
    """A flipped bit among the floats fails the page's checksum."""
    path = folder / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    at = content.index(vectors_ND[expected_order()[0]].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(KnowledgeBaseError, match="damaged"):
        read_vectors(folder)


def test_another_table_is_no_store_file(tmp_path: Path) -> None:
    """Parquet of other columns is refused."""
    pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]]}), tmp_path / "part-00000.parquet")
    with pytest.raises(KnowledgeBaseError, match="not a store file"):
        read_vectors(tmp_path)


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    """No part at all is one clear line."""
    with pytest.raises(KnowledgeBaseError, match="unibind encode"):
        read_vectors(tmp_path / "nothing")


def test_arguments_that_do_not_fit_are_our_own_bug(tmp_path: Path, vectors_ND: np.ndarray) -> None:
    """Counts that differ raise ValueError."""
    with pytest.raises(ValueError, match="do not fit"):
        write_vectors(tmp_path / "part-00000.parquet", ids=IDS[:-1], groups=GROUPS, vectors_ND=vectors_ND)
