"""data.tables.read: rows of hostile tables, and mistakes told together."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.tables.read import Mistakes, TextTable, parse_json, read_table


def read(path: Path) -> TextTable:
    mistakes = Mistakes(path)
    table = read_table(path, mistakes)
    mistakes.raise_if_any()
    return table


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_three_formats_give_the_same_cells(tmp_path: Path) -> None:
    """Text is stripped, whole numbers are text, and empty cells and nulls are None, in every format."""
    csv = read(write(tmp_path / "t.csv", "name,notes\n a ,\n7,x\n"))
    jsonl = read(write(tmp_path / "t.jsonl", '{"name": " a ", "notes": null}\n\n{"name": 7, "notes": "x"}\n'))
    pq.write_table(pa.table({"name": [" a ", "7"], "notes": [None, "x"]}), tmp_path / "t.parquet")
    parquet = read(tmp_path / "t.parquet")
    expected = [{"name": "a", "notes": None}, {"name": "7", "notes": "x"}]
    for table in (csv, jsonl, parquet):
        assert [row.cells for row in table.rows] == expected
        assert table.columns == {"name", "notes"}


def test_rows_are_told_as_an_editor_counts_them(tmp_path: Path) -> None:
    """A CSV row is named by its first line, also after a cell with a line break, and JSONL by its line."""
    csv = read(write(tmp_path / "t.csv", '\ufeffname,notes\na,"two\nlines"\nb,x\n\n'))
    assert [row.where for row in csv.rows] == ["line 2", "line 4"]
    jsonl = read(write(tmp_path / "t.jsonl", '\n{"name": "a"}\n'))
    assert [row.where for row in jsonl.rows] == ["line 2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"name\n\xff\xfe\n", "not UTF-8"),
        ("t.csv", "name,name\na,b\n", "duplicate"),
        ("t.csv", "name,notes\na\n", "line 2: 1 cells, but the header has 2"),
        ("t.csv", 'name\n"a\n', "not valid CSV"),
        ("t.csv", 'name\n"a"b\n', "not valid CSV"),
        ("t.csv", "name\n" + "x" * 140_000 + "\n", "not valid CSV: field larger"),
        ("t.csv", "name\na\x01b\n", "control character"),
        ("t.jsonl", "[1, 2]\n", "line 1: a list"),
        ("t.jsonl", "{\n", "line 1: not valid JSON"),
        ("t.jsonl", '{"name": "a", "name": "b"}\n', "duplicate"),
        ("t.jsonl", '{"name": "\\ud800"}\n', "broken text"),
        ("t.jsonl", '{"name": 1e999}\n', "float inf, not text"),
        ("t.jsonl", '{"name": [["a"]]}\n', "a list of lists"),
        ("t.jsonl", '{"name": "a", " name": "b"}\n', "line 1: duplicate column 'name'"),
        ("t.jsonl", '{"name": {"a": 1}}\n', "dict"),
        ("t.jsonl", "[" * 100_000 + "\n", "nested too deeply"),
        ("t.parquet", "name\na\n", "not a readable Parquet file"),
        ("t.parquet", "", "not a readable Parquet file"),
        ("t.xlsx", "", "unknown format"),
        ("t", "", "unknown format"),
    ],
)
def test_hostile_tables_get_one_clear_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """Damaged, ambiguous and absurd tables are refused with what is wrong and where."""
    with pytest.raises(ManifestError, match=message):
        read(write(tmp_path / name, content))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """No such file says so, with its path."""
    with pytest.raises(ManifestError, match=r"t\.csv: no such file"):
        read(tmp_path / "t.csv")


def test_parquet_nulls_of_pandas_are_none(tmp_path: Path) -> None:
    """NaN, which pandas writes for a missing cell, is an empty cell."""
    pq.write_table(pa.table({"name": pa.array([float("nan")]), "n": [3]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").rows[0].cells == {"name": None, "n": "3"}


def test_numbers_and_truth_values_become_text(tmp_path: Path) -> None:
    """Whole floats lose their `.0`, which is said; other numbers, truth values and dates read as written."""
    lines = ['{"name": 1}', '{"name": 1.0}', '{"name": 2.50}', '{"name": true}', '{"name": "1.0"}']
    mistakes = Mistakes(tmp_path)
    table = read_table(write(tmp_path / "t.jsonl", "\n".join(lines)), mistakes)
    assert [row.cells["name"] for row in table.rows] == ["1", "1", "2.5", "true", "1"]
    assert mistakes.notes == ["whole numbers are read without '.0' (1.0 is 1) in name"]


def test_lists_and_odd_column_names_stand_beside_texts(tmp_path: Path) -> None:
    """A list column, and a column with a dot in its name, do not disturb how texts are read."""
    table = pa.table(
        {"a.b": ["x"], "name": [["p", "q"]], "deep": [[["r"]]], "n": pa.array(["y"], pa.large_string())}
    )
    pq.write_table(table.drop_columns("deep"), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").rows[0].cells == {"a.b": "x", "name": ["p", "q"], "n": "y"}
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match="row 1: deep is a list of lists"):
        read(tmp_path / "t.parquet")


def test_small_files_that_unpack_to_much_are_refused(tmp_path: Path) -> None:
    """Five million rows in a few kilobytes, a megabyte of text in each of thousands: not unpacked."""
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000_000, pa.int32()), pa.array(["a.png"]))
    pq.write_table(pa.table({"uri": many}), tmp_path / "t.parquet", write_statistics=False)
    with pytest.raises(ManifestError, match=r"5,000,000 rows or values in [\d,]+ bytes; the file is damaged"):
        read(tmp_path / "t.parquet")
    lists = pa.ListArray.from_arrays(pa.array([0, 5_000_000], pa.int32()), many)
    pq.write_table(pa.table({"uri": ["a"], "name": lists}), tmp_path / "t.parquet", write_statistics=False)
    with pytest.raises(ManifestError, match=r"5,000,000 rows or values in [\d,]+ bytes; the file is damaged"):
        read(tmp_path / "t.parquet")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(
        pa.table({"uri": long}), tmp_path / "t.parquet", write_statistics=False, compression="zstd"
    )
    with pytest.raises(ManifestError, match="row 1: uri has 1,000,000 characters, more than 131,072: 'xxx"):
        read(tmp_path / "t.parquet")


_MOMENT = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        *(
            (pa.array([7, None], kind), ["7", None])
            for kind in (pa.int8(), pa.uint16(), pa.int64(), pa.uint64())
        ),
        *((pa.array([7.0, 0.1], kind), ["7", "0.1"]) for kind in (pa.float32(), pa.float64())),
        (pa.array(np.array([7.0, 0.5], np.float16)), ["7", "0.5"]),
        (pa.array([7.0, float("nan")]), ["7", None]),
        (pa.array([Decimal("7.00"), Decimal("0.50")]), ["7", "0.5"]),
        (pa.array([Decimal("700"), Decimal("70")]), ["700", "70"]),
        (pa.array([True, None]), ["true", None]),
        *((pa.array(["a", ""], kind), ["a", None]) for kind in (pa.string(), pa.large_string(), pa.binary())),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([7, None], pa.int32()).dictionary_encode(), ["7", None]),
        (pa.array([7.0, 8.0]).dictionary_encode(), ["7", "8"]),
        (pa.array(["1.0", "2.0"]), ["1", "2"]),
        (pa.array(["1.0", "2"]), ["1.0", "2"]),
        (pa.array([["a", "b"], None], pa.large_list(pa.string())), [["a", "b"], None]),
        (pa.array([None, ["a", None, "b"]], pa.list_(pa.large_string())), [None, ["a", "b"]]),
        (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], None]),
        (pa.array([[], [0.5, 7.0]], pa.list_(pa.float32())), [[], ["0.5", "7"]]),
        (pa.array([[7, 8], [9]], pa.list_(pa.int64())), [["7", "8"], ["9"]]),
        (pa.array([_MOMENT.date(), None]), ["2024-05-01", None]),
        (pa.array([_MOMENT, None], pa.timestamp("ns")), ["2024-05-01 12:30:00", None]),
        (pa.array([_MOMENT, None], pa.timestamp("ms", "UTC")), ["2024-05-01 12:30:00Z", None]),
        (pa.array([datetime(2024, 5, 1), None], pa.timestamp("us")), ["2024-05-01", None]),
        (pa.array([_MOMENT.time(), None], pa.time64("ns")), ["12:30:00", None]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_columns_of_every_type(tmp_path: Path, values: pa.Array, expected: list[object]) -> None:
    """A category or an id may be of any plain type that a frame's column has."""
    pq.write_table(pa.table({"uri": ["a", "b"], "name": values}), tmp_path / "t.parquet")
    assert [row.cells["name"] for row in read(tmp_path / "t.parquet").rows] == expected


@pytest.mark.parametrize(
    "values",
    [pa.array([b"\xff", b"a"]), pa.array([{"a": 1}, None]), pa.array([timedelta(seconds=1), None])],
    ids=lambda value: str(value.type),
)
def test_parquet_columns_that_are_no_text(tmp_path: Path, values: pa.Array) -> None:
    """Bytes that are not UTF-8, structures and durations are mistakes, with their row."""
    pq.write_table(pa.table({"uri": ["a", "b"], "name": values}), tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match=r"row 1: name is \w+ .*, not text"):
        read(tmp_path / "t.parquet")


_INDEXES = ("__index_level_0__", "Unnamed: 0", "index", "level_1")


@pytest.mark.parametrize("index", _INDEXES)
def test_the_index_of_a_frame_is_left_out(tmp_path: Path, index: str) -> None:
    """In Parquet and JSONL an index is no column, which is said with its first value."""
    rows = [{index: 3, "uri": "a"}, {index: 7, "uri": "b"}, {index: 8, "uri": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    for name in ("t.parquet", "t.jsonl"):
        mistakes = Mistakes(tmp_path)
        table = read_table(tmp_path / name, mistakes)
        assert table.columns == {"uri"}
        assert [row.cells["uri"] for row in table.rows] == ["a", "b"]
        assert mistakes.notes == [
            "1 empty row skipped",
            f"column {index!r} skipped: an index (its first value is 3)",
        ]


def test_known_columns_are_read_in_any_spelling(tmp_path: Path) -> None:
    """Capitals, spaces and signs in a header do not matter, and what was read as what is said."""
    known = ("sample_id", "uri", "category")
    pq.write_table(pa.table({"Sample ID": ["1"], "URI": ["a"], "category": ["x"]}), tmp_path / "t.parquet")
    write(tmp_path / "t.csv", "Sample ID,URI ,category\n1,a,x\n")
    write(tmp_path / "t.jsonl", '{"Sample ID": "1", "URI": "a", "category": "x"}')
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        mistakes = Mistakes(tmp_path)
        table = read_table(tmp_path / name, mistakes, known=known)
        assert [row.cells for row in table.rows] == [{"sample_id": "1", "uri": "a", "category": "x"}]
        assert mistakes.notes == ["columns read in another spelling: 'Sample ID' as sample_id, 'URI' as uri"]
    for name, content in (("t.csv", "uri,URI\na,b\n"), ("t.jsonl", '{"uri": "a", "URI": "b"}')):
        with pytest.raises(ManifestError, match="duplicate column 'uri'"):
            read_table(write(tmp_path / name, content), Mistakes(tmp_path), known=known)


def test_jsonl_with_byte_order_marks(tmp_path: Path) -> None:
    """At the start, and where two files were joined; UTF-16 is read, too."""
    text = '\ufeff{"name": "a"}\n\ufeff{"name": "b"}\r\n'
    for encoding in ("utf-8", "utf-16-le"):
        table = read(write(tmp_path / "t.jsonl", text.encode(encoding)))
        assert [row.cells["name"] for row in table.rows] == ["a", "b"]


def test_verbatim_columns_keep_their_spaces(tmp_path: Path) -> None:
    """What is to be reported as it was spelt is not stripped, but an empty cell stays None."""
    pq.write_table(pa.table({"uri": [" a "], "category": [" b "]}), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", Mistakes(tmp_path), verbatim=("category",))
    assert table.rows[0].cells == {"uri": "a", "category": " b "}


def test_twenty_mistakes_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    """One error lists the first 20 mistakes and the number of the others."""
    mistakes = Mistakes(tmp_path / "m.csv")
    for number in range(25):
        mistakes.add(f"line {number}", "wrong")
    with pytest.raises(ManifestError) as error:
        mistakes.raise_if_any()
    lines = str(error.value).splitlines()
    assert lines[0].endswith("m.csv: 25 mistakes")
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 5 more"


def test_no_mistake_raises_nothing(tmp_path: Path) -> None:
    """A clean table passes."""
    Mistakes(tmp_path).raise_if_any()


def test_json_is_read_strictly() -> None:
    """A repeated key is an error, a plain object is not."""
    assert parse_json('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="duplicate key"):
        parse_json('{"a": 1, "a": 2}')
