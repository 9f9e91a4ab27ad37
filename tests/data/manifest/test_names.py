"""data.manifest.names: one sample may have several categories."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ManifestError
from data.manifest.ids import name_key
from data.manifest.names import CategoryNames
from data.manifest.read import Manifest, read_manifest, write_manifest
from data.sample import Category, Sample
from data.tables.read import Mistakes, TextRow, TextTable


def _read(tmp_path: Path, text: str, categories: str | None = None) -> list[tuple[str | None, ...]]:
    (tmp_path / "m.csv").write_text(text)
    listed = tmp_path / "c.txt" if categories else None
    if listed:
        listed.write_text(categories or "")
    samples = read_manifest(tmp_path / "m.csv", categories=listed).samples
    return [(sample.category_id, *sample.more_category_ids) for sample in samples]


def test_several_names_are_a_text_or_a_list(tmp_path: Path) -> None:
    """The first is the category, the others come after it, each once; by name and by id alike."""
    csv = "uri,category\na.png,dog|big cat|dog\nb.png,dog\nc.png,\n"
    assert _read(tmp_path, csv) == [("dog", "big-cat"), ("dog",), (None,)]
    assert _read(tmp_path, csv.replace("category", "category_id"))[0] == ("dog", "big cat")
    rows = [{"uri": "a.png", "category": ["dog", "cat"]}, {"uri": "b.png", "category": ["dog"]}]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.jsonl", "m.parquet"):
        manifest = read_manifest(tmp_path / name)
        assert any("1 of 2 samples have several categories" in note for note in manifest.notes)
        first, second = manifest.samples
        assert (first.category_id, first.more_category_ids) == ("dog", ("cat",))
        assert (second.category_id, second.more_category_ids) == ("dog", ())


def test_a_listed_name_with_a_bar_wins(tmp_path: Path) -> None:
    """`black|white` is one category where the list has it, two where it does not."""
    csv = "uri,category\na.png,black|white\n"
    assert _read(tmp_path, csv, "black|white\nblack\nwhite\n") == [("black-white",)]
    assert _read(tmp_path, csv, "black\nwhite\n") == [("black", "white")]


def test_each_name_is_checked(tmp_path: Path) -> None:
    """An unknown one of several is told; names and ids must be as many."""
    with pytest.raises(ManifestError, match="'whit' is not in the category list; did you mean 'white'"):
        _read(tmp_path, "uri,category\na.png,black|whit\n", "black\nwhite\n")
    with pytest.raises(ManifestError, match="2 in column category but 1 in category_id"):
        _read(tmp_path, "uri,category,category_id\na.png,black|white,black\n")


def test_a_written_manifest_keeps_them(tmp_path: Path) -> None:
    """Names and ids of several categories survive writing and reading."""
    sample = Sample("s", "image", "a.png", "train", "dog", more_category_ids=("cat", "owl"))
    categories = tuple(Category(each, each.upper()) for each in ("cat", "dog", "owl"))
    write_manifest(tmp_path / "m.parquet", [sample], categories=categories)
    manifest = read_manifest(tmp_path / "m.parquet")
    assert manifest.samples == (sample,)
    assert manifest.categories == categories


def _manifest(tmp_path: Path, rows: list[tuple[str, str]] | list[tuple[str, str, str]]) -> Manifest:
    header = ["uri", "category", "category_id"][: len(rows[0])]
    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return read_manifest(tmp_path / "m.csv")


_APART = (
    "C",
    "C++",
    "C#",
    "+",
    "-",
    "1",
    "-1",
    "01",
    "1.5",
    "15",
    "t-shirt",
    "t shirt",
    "dog",
    "dog\u200b",
    "ｄｏｇ",
)


def test_what_a_name_means_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    """Names that differ by a sign stay apart, in every order of rows, with the same ids."""
    rows = [(f"{n}.png", name) for n, name in enumerate(_APART)]
    first = _manifest(tmp_path, rows)
    assert {category.name for category in first.categories} == set(_APART)
    of = {sample.uri: sample.category_id for sample in first.samples}
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        again = _manifest(tmp_path, rows)
        assert again.categories == first.categories
        assert {sample.uri: sample.category_id for sample in again.samples} == of
        assert again.notes == first.notes


def test_spellings_of_one_name_are_joined_and_reported(tmp_path: Path) -> None:
    """Case, normal form and white space are no difference; which spellings were met is one note."""
    rows = [("0.png", "Dog"), ("1.png", "dog "), ("2.png", "café"), ("3.png", "cafe\u0301"), ("4.png", "owl")]
    for each in (rows, rows[::-1]):
        manifest = _manifest(tmp_path, each)
        assert [category.name for category in manifest.categories] == ["café", "dog", "owl"]
        (note,) = [note for note in manifest.notes if "spellings" in note]
        assert note.startswith("2 categories in several spellings: ")
        assert r"'cafe\u0301' and 'café' are read as one category 'café'" in note
        assert "'Dog' and 'dog ' are read as one category 'dog'" in note


def test_a_name_takes_the_id_that_another_row_gives_it(tmp_path: Path) -> None:
    """Rows with an id teach those without, before or after them; so do rows with nothing but the id."""
    rows = [("0.png", "dog", ""), ("1.png", "Dog", "n01"), ("2.png", "", "n01"), ("3.png", "cat", "")]
    for each in (rows, rows[::-1]):
        manifest = _manifest(tmp_path, each)
        assert manifest.categories == (Category("cat", "cat"), Category("n01", "dog"))
        assert {s.uri: s.category_id for s in manifest.samples} == {
            **dict.fromkeys(("0.png", "1.png", "2.png"), "n01"),
            "3.png": "cat",
        }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("0.png", "dog", "1"), ("1.png", "cat", "1")],
            "has the id '1' of '(dog|cat)'; use one",
        ),
        ([("0.png", "dog", "1"), ("1.png", "Dog", "2")], "'dog' has the ids '[12]' and '[12]'; give a"),
        ([("0.png", "C", ""), ("1.png", "Charlie", "c")], "'C' would get the id 'c' of 'Charlie'"),
        ([("0.png", "", "Dog"), ("1.png", "", "dog")], "has the ids '(Dog|dog)' and '(Dog|dog)'"),
        ([("0.png", "dog", "1"), ("1.png", "", "dog")], "'dog' has the ids '1' and 'dog'"),
    ],
)
def test_two_names_of_one_id_and_two_ids_of_one_name_are_mistakes(
    tmp_path: Path, rows: list[tuple[str, str, str]], message: str
) -> None:
    """Whichever row comes first."""
    for each in (rows, rows[::-1]):
        with pytest.raises(ManifestError, match=message):
            _manifest(tmp_path, each)


def test_names_made_from_ids_are_never_two_categories_of_one_name(tmp_path: Path) -> None:
    """Where two ids would read alike they are shown as they are."""
    manifest = _manifest(
        tmp_path, [("0.png", "", "ice-cream"), ("1.png", "", "ice_cream"), ("2.png", "", "a_b")]
    )
    assert [(each.category_id, each.name) for each in manifest.categories] == [
        ("a_b", "a b"),
        ("ice-cream", "ice-cream"),
        ("ice_cream", "ice_cream"),
    ]


def test_a_list_is_matched_by_name_as_names_are_one(tmp_path: Path) -> None:
    """Rows may spell a listed name in other case, and its id exactly; a name beats an id, where both fit."""
    (tmp_path / "c.csv").write_text("category_id,name\nc,Charlie\nx,C\ny,C++\n")
    (tmp_path / "m.csv").write_text("uri,category\n0.png,CHARLIE\n1.png,y\n2.png,c++\n3.png,C\n")
    manifest = read_manifest(tmp_path / "m.csv", categories=tmp_path / "c.csv")
    assert [sample.category_id for sample in manifest.samples] == ["c", "y", "y", "x"]
    assert any(
        "'CHARLIE' and 'Charlie' are read as one category 'Charlie'" in note for note in manifest.notes
    )
    (tmp_path / "m.csv").write_text("uri,category\n0.png,c\n")
    with pytest.raises(ManifestError, match="'c' is the name of 'x' and the id of 'Charlie'"):
        read_manifest(tmp_path / "m.csv", categories=tmp_path / "c.csv")


def test_a_bar_alone_is_a_name(tmp_path: Path) -> None:
    """A cell of nothing but bars is not a sample without a category."""
    assert [
        category.name for category in _manifest(tmp_path, [("0.png", "|"), ("1.png", "||")]).categories
    ] == [
        "||",
        "|",
    ]


def test_a_word_for_nothing_is_noted(tmp_path: Path) -> None:
    """`nan` as a text is a category; that it may not be meant is said."""
    manifest = _manifest(tmp_path, [("0.png", "nan"), ("1.png", "dog")])
    assert any("'nan' is read as a category" in note for note in manifest.notes)


_FEW_NAMES = st.sampled_from(
    ["dog", "Dog ", "DOG", "C", "C++", "c", "a b", "a_b", "a-b", "1", "01", "\u200b"]
)
_FEW_IDS = st.sampled_from(["dog", "c", "1", "a-b", "x", "Dog"])


@given(
    st.lists(st.tuples(st.none() | _FEW_NAMES, st.none() | _FEW_IDS), min_size=1, max_size=7),
    st.randoms(use_true_random=False),
)
@settings(max_examples=500, deadline=None)
def test_any_names_and_ids_mean_the_same_in_any_order(
    pairs: list[tuple[str | None, str | None]], shuffled: random.Random
) -> None:
    """Refused or not: categories and what rows mean do not depend on the order, and no two names meet."""

    def meaning(order: list[int]) -> object:
        rows = [TextRow(str(n), {"category": pairs[n][0], "category_id": pairs[n][1]}) for n in order]
        names = CategoryNames(None, TextTable(frozenset(("category", "category_id")), rows))
        mistakes = Mistakes(Path("m.csv"))
        ids = {row.where: names.ids_of(row, mistakes) for row in rows}
        try:
            mistakes.raise_if_any()
        except ManifestError:
            return "refused"
        keys = [name_key(category.name) for category in names.categories()]
        assert len(keys) == len(set(keys))
        for row in rows:
            name, category_id = row.cells["category"], row.cells["category_id"]
            assert len(ids[row.where]) == (name is not None or category_id is not None)
            assert category_id is None or ids[row.where] == [category_id]
            if name is not None and name != category_id:
                (found,) = (each for each in names.categories() if [each.category_id] == ids[row.where])
                assert name_key(found.name) == name_key(name)
        return ids, names.categories(), names.notes()

    order = list(range(len(pairs)))
    first = meaning(order)
    shuffled.shuffle(order)
    again = meaning(order)
    assert first == again
