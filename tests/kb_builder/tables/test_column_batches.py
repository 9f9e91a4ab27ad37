"""A large table is read some rows at a time, and is the same table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.reads import recorded
from kb_builder.tables import schemas
from kb_builder.tables.schemas import column_batches, read_columns

UP = pa.field("up", pa.string())


@pytest.fixture(params=["small", "large"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten rows in row groups of four, as a table that is read whole and as one that is not."""
    monkeypatch.setattr(schemas, "_ROWS_IN_MEMORY", 10 if request.param == "small" else 9)
    monkeypatch.setattr(schemas, "_ROWS_AT_A_TIME", 3)
    path = tmp_path / f"{request.param}.parquet"
    columns = {"id": [f"{n}" for n in range(10)], "other": list(range(10)), "text": [None, *"abcdefghi"]}
    pq.write_table(pa.table(columns), path, row_group_size=4)
    return path


def test_pieces_are_the_whole(table: Path) -> None:
    """In the order of the columns that were asked for; one that is not there is null."""
    pieces = list(column_batches(table, ["text", "id"], hint="unibind run", optional=[UP]))
    assert max(map(len, pieces)) == 3
    whole = read_columns(table, ["text", "id"], hint="unibind run", optional=[UP])
    assert pa.concat_tables(pieces).combine_chunks().equals(whole.combine_chunks())


def test_a_change_is_noticed(table: Path) -> None:
    """Of what was read; of a large table any change counts."""
    with recorded() as recorder:
        list(column_batches(table, ["id"], hint="unibind run"))
    (note,) = recorder.notes()
    assert note.kind == ("columns" if table.stem == "small" else "file")
    assert note.again().digest == note.digest
    changed = pq.read_table(table, partitioning=None).slice(1)
    pq.write_table(changed, table)
    assert note.again().digest != note.digest


def test_what_is_wrong_is_named(table: Path) -> None:
    """A missing column, a damaged page, a missing file."""
    with pytest.raises(KnowledgeBaseError, match="no column 'nothing'; delete it and run `unibind run`"):
        list(column_batches(table, ["id", "nothing"], hint="unibind run"))
    data = table.read_bytes()
    table.write_bytes(data[:4] + bytes(40) + data[44:])
    with pytest.raises(KnowledgeBaseError, match=r"damaged \(.*; delete it and run `unibind run`"):
        list(column_batches(table, ["id"], hint="unibind run"))
    table.unlink()
    with pytest.raises(KnowledgeBaseError, match="missing; run `unibind run`"):
        list(column_batches(table, ["id"], hint="unibind run"))
