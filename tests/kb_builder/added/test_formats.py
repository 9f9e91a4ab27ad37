"""kb_builder.added.formats: published sets as texts about classes, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from data.files import hash_file
from kb_builder.added import formats
from kb_builder.added.formats import TEMPLATE, AddedFile, descriptor_sentence, read_file

CUPL = {
    "great white shark": ["A great white shark has a  white belly.", "Great white sharks swim far."],
    "hen": ["A hen pecks.", "The comb of a hen is red.", "It lays eggs."],
}
DCLIP = {
    "hen": ["two legs", "a red comb", "has feathers", "used for eggs", "often brown"],
    "sea_lion": ["fur"],
}


def written(folder: Path, content: Any, name: str = "set.json") -> Path:
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def pairs(found: AddedFile) -> list[tuple[str, str]]:
    return [(text.class_name, text.text) for text in found.texts]


def test_sentences(tmp_path: Path) -> None:
    """CuPL: every text as it is, with single spaces, in the order of the file."""
    path = written(tmp_path, CUPL)
    found = read_file(path)
    assert pairs(found)[0] == ("great white shark", "A great white shark has a white belly.")
    assert [text for _, text in pairs(found)[2:]] == CUPL["hen"]
    assert (found.form, found.file, found.sha256) == ("cupl", "set.json", hash_file(path))
    assert (found.template, found.notes) == (None, ())
    assert {(text.model, text.origin, text.written_at) for text in found.texts} == {(None, None, None)}


def test_descriptors(tmp_path: Path) -> None:
    """DCLIP: sentences by the published rule, and it is said that they were made, and by which template."""
    found = read_file(written(tmp_path, DCLIP))
    assert pairs(found) == [
        ("hen", "hen, which has two legs"),
        ("hen", "hen, which is a red comb"),
        ("hen", "hen, which has feathers"),
        ("hen", "hen, which is used for eggs"),
        ("hen", "hen, which often brown"),
        ("sea_lion", "sea lion, which has fur"),
    ]
    assert (found.form, found.template) == ("dclip", TEMPLATE)
    assert TEMPLATE in found.notes[0]
    assert "--as sentences" in found.notes[0]


def test_which_is_stated(tmp_path: Path) -> None:
    """What the texts are can be said, where a guess would be wrong."""
    path = written(tmp_path, DCLIP)
    assert pairs(read_file(path, as_="sentences"))[0] == ("hen", "two legs")
    forced = read_file(written(tmp_path, CUPL), as_="descriptors")
    assert pairs(forced)[-1] == ("hen", "hen, which has It lays eggs.")
    assert "--as" not in forced.notes[0]


def test_the_published_rule() -> None:
    """To the letter: whatever begins with an "a" gets "is"."""
    assert descriptor_sentence("elk", "antlers") == "elk, which is antlers"
    assert descriptor_sentence("elk", "may have antlers") == "elk, which may have antlers"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables(tmp_path: Path, ending: str) -> None:
    """A column of classes and one of texts, under any of their names; other columns are named and skipped."""
    rows = [("Hen", "A hen pecks.", "1"), ("hen", "The hen, brown.", "2"), ("emu", "An emu runs.", "3")]
    path = tmp_path / f"set{ending}"
    if ending == ".parquet":
        columns = dict(zip(("Class Name", "sentence", "page"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
    elif ending == ".jsonl":
        written(
            tmp_path, "\n".join(json.dumps({"label": c, "text": t, "page": p}) for c, t, p in rows), path.name
        )
    else:
        sign = ";" if ending == ".csv" else "\t"
        lines = [f"class{sign}text{sign}page", *(f'{c}{sign}"{t}"{sign}{p}' for c, t, p in rows)]
        written(tmp_path, "\n".join(lines), path.name)
    found = read_file(path)
    assert pairs(found) == [("Hen", "A hen pecks."), ("Hen", "The hen, brown."), ("emu", "An emu runs.")]
    assert found.form == "table"
    assert "columns not read: page" in found.notes


def test_what_comes_twice_or_is_empty(tmp_path: Path) -> None:
    """Repeated and empty texts and empty classes are skipped, and counted."""
    found = read_file(written(tmp_path, {"hen": ["A hen.", "", " ", "A  hen.", "Hens."], "emu": []}))
    assert pairs(found) == [("hen", "A hen."), ("hen", "Hens.")]
    assert "1 texts that repeat another of their class skipped" in found.notes
    assert "2 empty texts skipped" in found.notes
    assert "classes without a text, such as 'emu', skipped" in found.notes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ["x"], "b": ["y"], "a": ["z"]}', "the key 'a' comes twice"),
        ([["hen"]], "found a list"),
        ("7", "found a int"),
        ({}, "found an empty object"),
        ({"hen": []}, "holds no text"),
        ({"hen": [1, 2]}, "class 'hen': text 1 is a int: 1"),
        ({"hen": "A hen."}, "class 'hen': its texts are a str, not a list"),
        ({"hen": {"look": ["A hen."]}}, "class 'hen': its texts are a dict"),
        ({"hen": [["A hen."]]}, "class 'hen': text 1 is a list"),
        ({"hen": [None]}, "class 'hen': text 1 is a NoneType"),
        ({" ": ["A hen."]}, "class ' ': no class name"),
        ({"hen": ["A \x1b[31mhen."]}, "text 1 holds a control character"),
        ({"h\x00en": ["A hen."]}, "class holds a control character"),
        ({"hen": ["A \ud800."]}, "text 1 holds a control character or broken text"),
        ({"Hen": ["A hen."], "hen ": ["Hens."]}, "class 'hen ': the same class as 'Hen'"),
        ({"stra\u00dfe": ["A."], "STRASSE": ["B."]}, "the same class as 'stra\u00dfe'"),
        ({"hen": ["A hen." * 30_000]}, "more than 131,072"),
        ('{"hen": [NaN]}', "text 1 is a float"),
        ('{"hen": [' + "9" * 5000 + "]}", "not valid JSON"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_json_that_is_no_set(tmp_path: Path, content: Any, said: str) -> None:
    """Each mistake is a line that says where it is."""
    path = written(tmp_path, content)
    with pytest.raises(InputError) as raised:
        read_file(path)
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert max(map(len, str(raised.value).splitlines())) < 400


def test_every_mistake_has_its_line(tmp_path: Path) -> None:
    """Not only the first one."""
    with pytest.raises(InputError, match="3 mistakes") as raised:
        read_file(written(tmp_path, {"a": [1], "b": "x", "c": ["\x07"]}))
    assert len(str(raised.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("set.csv", "class,words\nhen,A hen.\n", "no column text"),
        ("set.csv", "kind,text\nhen,A hen.\n", "no column class"),
        ("set.csv", "class,text\n,A hen.\n", "line 2: no class name"),
        ("set.csv", "class,text\nhen,\n", "holds no text"),
        ("set.csv", "", "set.csv"),
        ("set.parquet", "PAR1", "set.parquet"),
        ("set.txt", "hen", "unknown format '.txt'"),
    ],
)
def test_tables_that_are_no_set(tmp_path: Path, name: str, content: str, said: str) -> None:
    """What is missing is named."""
    with pytest.raises(InputError) as raised:
        read_file(written(tmp_path, content, name))
    assert said in str(raised.value)


def test_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of any size is refused before it is read, and so are too many texts of one class."""
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        read_file(large)
    monkeypatch.setattr(formats, "MOST_TEXTS", 2)
    with pytest.raises(InputError, match="class 'hen': 3 texts, more than 2"):
        read_file(written(tmp_path, {"hen": ["A hen.", "Hens.", "The hen."]}))


def test_what_is_no_file(tmp_path: Path) -> None:
    """Missing files, and names too long for one."""
    for name in ("none.json", "x" * 5000 + ".json"):
        with pytest.raises(InputError, match="no such file"):
            read_file(tmp_path / name)
