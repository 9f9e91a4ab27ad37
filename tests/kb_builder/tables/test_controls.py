"""kb_builder.tables.controls: texts that know a category only by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.errors import InputError
from kb_builder.tables.controls import TEMPLATES, WORDS, most_controls, random_descriptors, write_controls
from kb_builder.tables.schemas import CATEGORIES, DESCRIPTIONS, read_rows, write_table
from tests.planted import write_categories


def make_kb(folder: Path, *names: str) -> Path:
    write_categories(folder, {str(number): name for number, name in enumerate(names)})
    return folder


def texts(kb: Path, control: str, category_id: str) -> list[str]:
    rows = [row for row in read_rows(kb / "controls.parquet") if row["control"] == control]
    chosen = [row for row in rows if row["category_id"] == category_id]
    assert [row["rank"] for row in chosen] == list(range(len(chosen)))
    return [row["text"] for row in chosen]


def test_every_category_has_as_many_texts_as_centers(tmp_path: Path) -> None:
    """One bare name, and `count` different templates and random texts, each naming the category."""
    kb = make_kb(tmp_path, "dog", "apple {name} {a}")
    assert write_controls(kb, count=50, seed=0) == {"class_name": 2, "random_words": 100, "templates": 100}
    assert texts(kb, "class_name", "0") == ["dog"]
    for control in ("templates", "random_words"):
        for category_id, name in (("0", "a dog"), ("1", "an apple {name} {a}")):
            made = texts(kb, control, category_id)
            assert len(set(made)) == 50
            assert all(name in text for text in made)
    ids = [row["row_id"] for row in read_rows(kb / "controls.parquet")]
    assert len(set(ids)) == len(ids)


def test_notes_stand_as_they_are(tmp_path: Path) -> None:
    """One text per category where the list has notes, else none; a category without notes has its name."""
    kb = make_kb(tmp_path, "KP-4211", "KP-4212")
    assert "notes" not in write_controls(kb, count=3, seed=0)
    rows = read_rows(kb / "categories.parquet")
    write_table(kb / "categories.parquet", [rows[0] | {"notes": "a ball; it rings"}, rows[1]], CATEGORIES)
    assert write_controls(kb, count=3, seed=0)["notes"] == 2
    assert [texts(kb, "notes", each) for each in "01"] == [["a ball; it rings"], ["KP-4212"]]


def test_all_is_what_the_largest_category_has(tmp_path: Path) -> None:
    """Of 200 valid descriptions and of three; those that were turned away do not count."""
    kb = make_kb(tmp_path, "dog", "cat")
    blank = {field.name: None if field.nullable else 0 for field in DESCRIPTIONS}
    blank |= {field.name: "" for field in DESCRIPTIONS if field.type == "string" and not field.nullable}
    owners = [("0", "ok")] * 200 + [("0", "refusal")] * 9 + [("1", "ok")] * 3
    rows = [
        {**blank, "row_id": str(number), "category_id": owner, "status": status}
        for number, (owner, status) in enumerate(owners)
    ]
    write_table(kb / "descriptions" / "category" / "part-00000.parquet", rows, DESCRIPTIONS)
    assert write_controls(kb, count="all", seed=0) == {"class_name": 2, "random_words": 400, "templates": 400}
    assert len(set(texts(kb, "templates", "1"))) == 200


def test_categories_differ_by_name_alone(tmp_path: Path) -> None:
    """The random part is the same for every category: words and letters in turns, as WaffleCLIP has them."""
    kb = make_kb(tmp_path, "dog", "cat")
    write_controls(kb, count=9, seed=3)
    dogs, cats = (texts(kb, "random_words", category_id) for category_id in "01")
    assert [text.replace("dog", "cat") for text in dogs] == cats
    assert all(re.fullmatch(r"a photo of a dog, which has \w+ \w+\.", text) for text in dogs[::2])
    assert all(re.fullmatch(r"a photo of a dog, which has [a-z]{6}, [a-z]{6}\.", text) for text in dogs[1::2])


def test_seeds(tmp_path: Path) -> None:
    """One seed gives the same bytes again, another gives other words; a smaller count is a beginning."""
    assert random_descriptors(20, seed=1) == random_descriptors(20, seed=1)
    assert random_descriptors(20, seed=1)[:10] == random_descriptors(10, seed=1)
    assert not set(random_descriptors(20, seed=1)) & set(random_descriptors(20, seed=2))
    kb = make_kb(tmp_path, "dog")
    write_controls(kb, count=5, seed=0)
    first = (kb / "controls.parquet").read_bytes()
    write_controls(kb, count=5, seed=0)
    assert (kb / "controls.parquet").read_bytes() == first


def test_the_fixed_texts() -> None:
    """There are templates for thousands of centers, all different; the first 16 speak of every modality."""
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 8192
    assert all(template.count("{name}") == template.count("{a}") == 1 for template in TEMPLATES)
    assert not any(re.match(r"a [aeiou]|an [^aeiou]", template) for template in TEMPLATES)
    first = " ".join(TEMPLATES[:16])
    for word in ("photo", "sound", "point cloud", "thermal", "video", "event-camera", "text"):
        assert word in first
    assert len(WORDS) == len(set(WORDS)) > 300


@pytest.mark.parametrize("count", [0, -1, 8193])
def test_counts_that_cannot_be_made(tmp_path: Path, count: int) -> None:
    """More texts than templates would not be an equal number: that is said, not filled up."""
    with pytest.raises(InputError, match="between 1 and 8192"):
        write_controls(make_kb(tmp_path, "dog"), count=count, seed=0)


def test_another_k_has_the_same_texts() -> None:
    """How many texts are made changes in steps, so that another k seldom means other vectors."""
    assert {most_controls(k) for k in range(1, 65)} == {64}
    assert (most_controls(65), most_controls(129), most_controls("all"), most_controls(9000)) == (
        128,
        256,
        8192,
        8192,
    )
