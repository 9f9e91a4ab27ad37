"""data.tables.delimited: CSV and TSV as Excel, LibreOffice, pandas and editors write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data.errors import ManifestError
from data.tables.mistakes import Mistakes
from data.tables.read import read_table

_KNOWN = ("uri", "category", "split", "modality")
_ROW = {"uri": "a.jpg", "category": "dog", "split": "train", "modality": "image"}


def read(folder: Path, content: str | bytes, name: str = "m.csv") -> tuple[list[dict[str, str]], list[str]]:
    """The rows and the notes; ManifestError for every mistake."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    mistakes = Mistakes(path)
    table = read_table(path, mistakes, known=_KNOWN)
    mistakes.raise_if_any()
    return [row.cells for row in table.rows], mistakes.notes


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("uri;category;split;modality\na.jpg;dog;train;image\n", "the columns are separated by ';'"),
        ("uri\tcategory\tsplit\tmodality\na.jpg\tdog\ttrain\timage\n", "separated by a tab"),
        ("sep=;\nuri;category;split;modality\na.jpg;dog;train;image\n", None),
        ('"sep=,"\nuri,category,split,modality\na.jpg,dog,train,image\n', None),
        ("SEP=|\nuri|category|split|modality\na.jpg|dog|train|image\n", None),
        ("uri;category;split;modality;;\na.jpg;dog;train;image;;\n", "2 columns without a name or a value"),
        (",uri,category,split,modality\n0,a.jpg,dog,train,image\n", "an index (its first value is '0')"),
        (
            "Unnamed: 0.1,Unnamed: 0,uri,category,split,modality\n0,3,a.jpg,dog,train,image\n",
            "first value is '3'",
        ),
        (",,uri,category,split,modality\nx,0,a.jpg,dog,train,image\n", "first value is 'x'"),
        (
            "uri,category,split,modality,Unnamed: 4\na.jpg,dog,train,image,\n",
            "column 'Unnamed: 4' skipped: empty",
        ),
        ("uri,category,split,modality\na.jpg,dog,train,image\n,,,\n , , ,\n", "2 empty rows skipped"),
        ("uri,category,split,modality\na.jpg,dog,train,image\n,,\n,,,,,\n", "2 empty rows skipped"),
        (",uri,category,split,modality\n0,a.jpg,dog,train,image\n1,,,,\n", "1 empty row skipped"),
        (
            "uri,category,split,modality\na.jpg,dog,train,image,,\n",
            "1 row with empty cells beyond",
        ),
        ("uri,category,split,modality,,\na.jpg,dog,train,image\n", "2 columns without a name"),
        ("URI, Category ,SPLIT,Modality\na.jpg,dog,train,image\n", "'URI' as uri"),
        ("\n\n,,,\nuri,category,split,modality\na.jpg,dog,train,image\n\n\n", None),
        ('uri, category, "split", modality\na.jpg, "dog", train, image\n', None),
        ("uri,category,split,modality\r\na.jpg,dog,train,image\r\n", None),
        ("uri,category,split,modality\ra.jpg,dog,train,image\r", None),
        ("uri,category,split,modality\na.jpg,dog,train,image", None),
    ],
)
def test_what_people_have(tmp_path: Path, content: str, note: str | None) -> None:
    """Other separators, index columns, empty rows and columns, capitals: one row is read, and it is said."""
    rows, notes = read(tmp_path, content)
    assert rows == [_ROW]
    assert note is None or any(note in each for each in notes)
    assert note is not None or not notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    """UTF-8, UTF-16 and UTF-32 are read by their mark; Excel's "Unicode text" has tabs and UTF-16."""
    mark = "\ufeff" if encoding.endswith("e") else ""
    text = f"{mark}uri\tcategory\tsplit\tmodality\r\na.jpg\tcafé\ttrain\timage\r\n"
    rows, notes = read(tmp_path, text.encode(encoding), name="m.tsv")
    assert rows == [_ROW | {"category": "café"}]
    assert notes == []


def test_rows_within_an_open_quote_are_noted(tmp_path: Path) -> None:
    """A quote that is closed three rows later swallows rows; a description of several lines does not."""
    head = "uri,category,split\n"
    rows, notes = read(tmp_path, f'{head}a.jpg,dog,"train\nb.jpg,cat,test\nc.jpg,cat,test"\nd.jpg,dog,test\n')
    assert len(rows) == 2
    assert [note for note in notes if note.startswith("line 2: a cell in double quotes goes on")]
    _, notes = read(tmp_path, f'{head}a.jpg,"a dog, big\nand brown, too",train\n')
    assert notes == []


def test_a_decimal_column_of_pandas(tmp_path: Path) -> None:
    """Whole numbers that an empty cell made floats are whole again; a mixed column is left as it is."""
    rows, notes = read(tmp_path, "uri,category\na,1.0\nb,\nc,2.0\n")
    assert [row["category"] for row in rows] == ["1", None, "2"]
    assert notes == ["whole numbers are read without '.0' (1.0 is 1) in category"]
    rows, _ = read(tmp_path, "uri,category\na,1.0\nb,2.5\n")
    assert [row["category"] for row in rows] == ["1", "2.5"]
    for mixed in (("1.0", "1"), ("1.0", "1.00"), ("1.0", "v1.0"), ("1.0", "01.0")):
        rows, notes = read(tmp_path, f"uri,category\na,{mixed[0]}\nb,{mixed[1]}\n")
        assert [row["category"] for row in rows] == list(mixed)
        assert notes == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("uri|category\na|b\n", r"line 1: the header is one cell, 'uri\|category', with '\|' in it"),
        ("path:label\na:b\n", "line 1: the header is one cell"),
        ("uri,category\na;b\n", "line 2: 1 cells, .* the header is separated by a comma, this row is not"),
        ("uri;category\na;b;c\n", "line 2: 3 cells, .* a cell that holds ';' into double quotes"),
        ("sep=;\nuri;category\n\na\n", "line 4: 1 cells"),
        ("uri,category,\na,b,c\n", "line 2: 'c' in column 3, which has no name in the header"),
        ("uri,category,,\na,b,,d\n", "line 2: 'd' in column 4"),
        ("uri,category\na\n", "line 2: 1 cells, but the header has 2 columns"),
        ("uri\na,b\n", "2 cells, but the header has 1 column;"),
        ("# by me\nuri,category\na,b\n", "line 1: begins with '#', .*; remove comments"),
        (
            "uri,category\n1,a,b\n",
            "line 2: 3 cells, .* a row number, as R writes it, name its column `index`",
        ),
        ("uri,uri\na,b\n", "duplicate"),
        ('uri\n"a\n', "line 2: not valid CSV"),
        ('uri\n"a \\"b\\" c"\n', "line 2: not valid CSV: .*; a double quote inside a cell is written twice"),
        ("uri\n" + "x" * 140_000, "not valid CSV: field larger"),
        (b"uri,category\na.jpg,caf\xe9\n", r"not UTF-8 .* line 2\); as Windows-1252 .* 'a\.jpg,café'"),
        ("uri,category\na,b\n".encode("utf-16-le"), "UTF-16 text without a byte-order mark"),
        ("\ufeffuri".encode("utf-16")[:-1], "begins as UTF-16 text and breaks off"),
        (b"\x89PNG\x00\x01\xff", "does not look like a text file"),
    ],
)
def test_what_is_refused_tells_its_cause(tmp_path: Path, content: str | bytes, message: str) -> None:
    """A wrong separator, a nameless column with values, another encoding: one line says which."""
    with pytest.raises(ManifestError, match=message):
        read(tmp_path, content)


_CELLS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=6)


@given(
    rows=st.lists(st.tuples(_CELLS, _CELLS, _CELLS), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t"),
    ending=st.sampled_from(("\n", "\r\n", "\r")),
    mark=st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
    index=st.booleans(),
    trailing=st.integers(0, 2),
)
@example(rows=[("a;b", "c,d", 'e"f')], separator=";", ending="\r", mark="utf-16", index=True, trailing=1)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_dialect_reads_back_what_was_written(
    tmp_path: Path,
    rows: list[tuple[str, str, str]],
    separator: str,
    ending: str,
    mark: str,
    *,
    index: bool,
    trailing: int,
) -> None:
    """Whatever separator, line ending, mark, index and empty columns: the cells are the same."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=ending)
    writer.writerow([*([""] * index), "uri", "category", "split", *([""] * trailing)])
    for number, row in enumerate(rows):
        writer.writerow([*([number] * index), *row, *([""] * trailing)])
    content = file.getvalue().encode(mark)
    try:
        read_rows, _ = read(tmp_path, content)
    except ManifestError as error:
        assert "control character" in str(error)
        return
    plain = [dict(zip(("uri", "category", "split"), map(str.strip, row), strict=True)) for row in rows]
    expected = [row for row in plain if any(row.values())]
    for found, wanted in zip(read_rows, expected, strict=True):
        for name, text in wanted.items():
            assert (found[name] or "").removesuffix(".0") == text.removesuffix(".0")
