"""data.category_list: lists of categories in four formats."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.category_list import read_categories
from data.errors import ManifestError
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


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Repeated ids and names, a name of signs, a missing name and an unknown column stand in one error."""
    content = "name,alias,category_id\nDog,x,\ndog,x,\nDog,x,d2\n!!!,x,\n,x,\n"
    with pytest.raises(ManifestError) as error:
        read_categories(write(tmp_path / "c.csv", content))
    told = str(error.value)
    assert "5 mistakes" in told
    assert "unknown column 'alias'; did you mean 'aliases'?" in told
    assert "line 3: category_id 'dog' of 'dog' is already that of 'Dog'" in told
    assert "line 4: the name 'Dog' is already that of 'dog'" in told
    assert "line 5: '!!!' has no letter or digit" in told
    assert "line 6: no name" in told


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
