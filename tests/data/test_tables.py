"""data.tables: rows of hostile tables, and mistakes told together."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.tables import Mistakes, Table, parse_json, read_table


def read(path: Path) -> Table:
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
        ("t.csv", "name,name\na,b\n", "stands twice"),
        ("t.csv", "name,notes\na\n", "line 2: 1 cells, but the header has 2"),
        ("t.csv", 'name\n"a\n', "not valid CSV"),
        ("t.csv", 'name\n"a"b\n', "not valid CSV"),
        ("t.csv", "name\n" + "x" * 140_000 + "\n", "not valid CSV: field larger"),
        ("t.csv", "name\na\x01b\n", "control character"),
        ("t.jsonl", "[1, 2]\n", "line 1: a list"),
        ("t.jsonl", "{\n", "line 1: not valid JSON"),
        ("t.jsonl", '{"name": "a", "name": "b"}\n', "stands twice"),
        ("t.jsonl", '{"name": "\\ud800"}\n', "broken text"),
        ("t.jsonl", '{"name": 1.5}\n', "float 1.5, not text"),
        ("t.jsonl", '{"name": true}\n', "bool True, not text"),
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
    with pytest.raises(ValueError, match="twice"):
        parse_json('{"a": 1, "a": 2}')
