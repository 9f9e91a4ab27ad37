"""data.manifest.categories: lists of categories in four formats."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ManifestError
from data.manifest.categories import read_categories
from data.sample import Category


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_the_four_formats(tmp_path: Path) -> None:
    """CSV, JSONL and Parquet give every column, a text file the names; ids are slugs where not given."""
    full = (
        Category("dog", "Dog", ("hound", "pooch"), "animal", "barks"),
        Category("ice-cream", "Ice cream"),
    )
    csv = "category_id,name,aliases,parent,notes\ndog,Dog,hound | pooch,animal,barks\n,Ice cream,,,\n"
    assert read_categories(write(tmp_path / "c.csv", csv)) == full
    jsonl = (
        '{"name": "Dog", "aliases": ["hound", "pooch"], "parent": "animal", "notes": "barks"}\n'
        '{"name": "Ice cream"}\n'
    )
    assert read_categories(write(tmp_path / "c.jsonl", jsonl)) == full
    table = pa.table(
        {
            "name": ["Dog", "Ice cream"],
            "aliases": [["hound", "pooch"], []],
            "parent": ["animal", None],
            "notes": ["barks", None],
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    assert read_categories(tmp_path / "c.parquet") == full
    text = write(tmp_path / "c.txt", "\ufeffDog\n\n  Ice cream \n")
    assert [category.name for category in read_categories(text)] == ["Dog", "Ice cream"]


def test_an_alias_of_two_categories_is_noted(tmp_path: Path) -> None:
    """An alias that is another's name or alias, in any spelling; one's own name again is nothing."""
    content = "name,aliases\ndog,Wolf|hound|DOG\nwolf,\ncat,puss|hound\n"
    notes: list[str] = []
    read_categories(write(tmp_path / "c.csv", content), notes=notes)
    (note,) = notes
    assert note.startswith("c.csv: 3 aliases that another category has as well, such as 'Wolf' of 'dog'")
    notes = []
    read_categories(write(tmp_path / "c.csv", "name,aliases\ndog,hound|Dog\ncat,puss\n"), notes=notes)
    assert notes == []


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("# animals\ndog\ncat\n", "1 line read as a name, such as '# animals'"),
        ("0 dog\n1 cat\n", "every line begins with a number"),
        ("1: dog\n2: cat\n", "every line begins with a number"),
        ("/a/airfield 0\n/b/barn 1\n", "every line ends with a number"),
        ("dog\n7 cats\nno. 9\n7\n", None),
        ("1\n2\n", None),
    ],
)
def test_lines_that_are_more_than_a_name_are_noted(content: str, note: str | None, tmp_path: Path) -> None:
    """Comments and numbers of a text list are names, or parts of them: that is said."""
    notes: list[str] = []
    read_categories(write(tmp_path / "c.txt", content), notes=notes)
    assert [note in each for each in notes if note] == ([True] if note else [])
    assert len(notes) == (note is not None)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Repeated ids and names, a name of nothing, a missing name and an unknown column stand in one error."""
    content = "name,alias,category_id\nDog,x,\ndog,x,\nDog,x,d2\n\u200b,x,\n,x,\nHund,x,dog\n"
    with pytest.raises(ManifestError) as error:
        read_categories(write(tmp_path / "c.csv", content))
    told = str(error.value)
    assert "6 mistakes" in told
    assert "unknown column 'alias'; did you mean 'aliases'?" in told
    assert "line 3: the name 'dog' is already that of 'dog', 'Dog' (names that differ only" in told
    assert "line 4: the name 'Dog' is already that of 'dog'" in told
    assert r"line 5: the name '\u200b' has no visible character" in told
    assert "line 6: no name" in told
    assert "line 7: category_id 'dog' of 'Hund' is already that of 'Dog'" in told


@pytest.mark.parametrize("order", [1, -1])
def test_names_of_signs_are_categories_of_their_own(tmp_path: Path, order: int) -> None:
    """C, C++ and C# are three, whatever order they stand in, as a table and as a text."""
    names = ["C", "C++", "C#", "+", "-", "😀", "1", "-1"][::order]
    text = read_categories(write(tmp_path / "c.txt", "\n".join(names)))
    table = read_categories(write(tmp_path / "c.csv", "\n".join(["name", *names])))
    assert text == table
    assert [category.name for category in text] == names
    assert len({category.category_id for category in text}) == len(names)
    assert {category.name: category.category_id for category in text}["C++"] == "c--cedb1bac7e"


def test_lists_as_programs_write_them(tmp_path: Path) -> None:
    """Separators, an index, empty rows, capitals and Excel's Unicode text; what was skipped is noted."""
    notes: list[str] = []
    path = write(tmp_path / "c.csv", ";Name;\n0;Dog;\n1;7.0;\n;;\n")
    assert [each.name for each in read_categories(path, notes=notes)] == ["Dog", "7.0"]
    assert any("c.csv: 1 empty row" in note for note in notes)
    assert any("c.csv: column 'Unnamed: 0' skipped" in note for note in notes)
    (tmp_path / "c.txt").write_bytes("\ufeffName\tAliases\r\ncafé\tbar|pub\r\n".encode("utf-16-le"))
    assert read_categories(tmp_path / "c.txt") == (Category("café", "café", ("bar", "pub")),)
    pq.write_table(pa.table({"name": [1.0, 2.0], "__index_level_0__": [4, 5]}), tmp_path / "c.parquet")
    assert [each.category_id for each in read_categories(tmp_path / "c.parquet")] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no category in it"), ("label\ndog\n", "no column 'name'"), ("name\n", "no category in it")],
)
def test_lists_without_categories(tmp_path: Path, content: str, message: str) -> None:
    """An empty list, and one whose names cannot be found, are refused."""
    with pytest.raises(ManifestError, match=message):
        read_categories(write(tmp_path / "c.csv", content))


def test_a_list_where_text_belongs(tmp_path: Path) -> None:
    """Only aliases may be a list."""
    with pytest.raises(ManifestError, match="parent is a list"):
        read_categories(write(tmp_path / "c.jsonl", '{"name": "Dog", "parent": ["a"]}\n'))
