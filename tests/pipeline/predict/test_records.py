"""Predictions and hits for programs: every field, unrounded, whatever a file is called."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.compare.runs import ComparedValue, Comparison
from pipeline.predict.answers import ALIGNED, MEAN, Favoured, Hit, NamedCategory, OtherAnswer, Prediction
from pipeline.predict.records import (
    ANSWER,
    FAVOURED,
    HIT,
    OTHER,
    PREDICTION,
    PREDICTION_COLUMNS,
    hits_csv,
    hits_json,
    predictions_csv,
    predictions_json,
)

HOSTILE = 'a,"b"\x1b[31m\n\u202e\udcff=1+1.txt'
SHOWN = 'a,"b"\\x1b[31m\\n\\u202e\\udcff=1+1.txt'
FOUND = (
    Prediction(
        HOSTILE,
        "image",
        ALIGNED,
        (NamedCategory("ash\x9b", 0.1 + 0.2, "why", 1 / 3, "ash"),),
        others=(OtherAnswer(MEAN, "b\x1b", 0.1, "b"),),
        favoured=Favoured("c\x1b", "c", 0.2),
    ),
    Prediction("gone.png", "unknown", "", error="no such file"),
    Prediction(
        "b.txt",
        "text",
        ALIGNED,
        (NamedCategory("x", 0.5, ""), NamedCategory("y", 0.25, "")),
        None,
        "no reason",
    ),
)
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def test_json_holds_every_field_and_gives_the_names_back() -> None:
    """Numbers as they are, null for what is not there, errors beside answers; no raw control character."""
    told = predictions_json(FOUND, [f"note on {HOSTILE}"])
    assert not RAW.search(told)
    value = json.loads(told)
    assert value["notes"] == [f"note on {HOSTILE}"]
    first, gone, last = value["predictions"]
    assert (tuple(first), tuple(first["answers"][0])) == (PREDICTION, ANSWER)
    assert first["file"] == HOSTILE
    assert first["answers"] == [
        {
            "rank": 1,
            "category_id": "ash",
            "category": "ash\x9b",
            "score": 0.30000000000000004,
            "probability": 1 / 3,
            "why": "why",
        }
    ]
    assert first["others"] == [{"model": "mean", "category_id": "b", "category": "b\x1b", "score": 0.1}]
    assert first["favoured"] == {"category_id": "c", "category": "c\x1b", "constant": 0.2}
    assert (last["others"], last["favoured"]) == ([], None)
    assert (first["model"], first["error"], first["no_probability"]) == ("aligned", None, None)
    assert (gone["modality"], gone["model"], gone["error"], gone["answers"]) == (
        None,
        None,
        "no such file",
        [],
    )
    assert (last["no_probability"], [one["rank"] for one in last["answers"]]) == ("no reason", [1, 2])
    assert json.loads(predictions_json([], [])) == {"predictions": [], "notes": []}


def test_csv_has_a_row_for_each_answer_and_each_error() -> None:
    """Its cells are those of the JSON; what no terminal may be sent is written as its escape."""
    told = predictions_csv(FOUND)
    assert not RAW.search(told)
    rows = list(csv.DictReader(io.StringIO(told)))
    assert tuple(rows[0]) == PREDICTION_COLUMNS
    assert [row["file"] for row in rows] == [SHOWN, "gone.png", "b.txt", "b.txt"]
    assert (float(rows[0]["score"]), float(rows[0]["probability"])) == (0.1 + 0.2, 1 / 3)
    assert (rows[1]["error"], rows[1]["rank"], rows[1]["score"]) == ("no such file", "", "")
    assert [row["rank"] for row in rows[2:]] == ["1", "2"]


def test_hits_in_both_forms() -> None:
    """The query is in the JSON; a hit without a category has null, in CSV nothing."""
    hits = [Hit(HOSTILE, "audio", "ash", 0.1 + 0.2, "a", "x.wav"), Hit("s", "text", None, 0.5)]
    value = json.loads(hits_json(HOSTILE, hits, []))
    assert value["query"] == HOSTILE
    assert tuple(value["hits"][0]) == HIT
    assert [hit["score"] for hit in value["hits"]] == [0.1 + 0.2, 0.5]
    assert value["hits"][1]["category"] is None
    rows = list(csv.DictReader(io.StringIO(hits_csv(hits))))
    assert [row["sample_id"] for row in rows] == [SHOWN, "s"]
    assert (rows[1]["category"], rows[0]["uri"]) == ("", "x.wav")


def test_the_page_on_scripts_names_every_field() -> None:
    """docs/scripts.md has each key and column in the section of its command."""
    page = (Path(__file__).parents[3] / "docs" / "scripts.md").read_text(encoding="utf-8")
    sections = {each.split(maxsplit=2)[1]: each for each in page.split("\n## `")[1:]}
    fields = {
        "predict": {"predictions", "notes", *PREDICTION, *ANSWER, *OTHER, *FAVOURED, *PREDICTION_COLUMNS},
        "retrieve": {"query", "hits", "notes", *HIT},
        "compare": {each.name for kind in (Comparison, ComparedValue) for each in dataclasses.fields(kind)},
    }
    for command, names in fields.items():
        assert {name for name in names if f"`{name}`" not in sections[command]} == set(), command


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_the_command_prints_nothing_else_and_ends_with_1(tmp_path: Path, unibind: Any, form: str) -> None:
    """stdout is one document, notes go to stderr; a file that failed makes the status 1, and only that."""
    names = ['a,"b"\x1b[31m.txt', "new\nline.txt", os.fsdecode(b"\xff.txt"), "plain.txt"]
    for name in names:
        (tmp_path / name).write_text("a teapot", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    asked = ("--categories", "teapot,dog,", form)
    status, told, notes = unibind("predict", ".", *asked, folder=tmp_path)
    assert status == 1, notes
    assert not RAW.search(told)
    assert "1 empty name left out" in notes
    if form == "--json":
        found = {each["file"]: each["error"] for each in json.loads(told)["predictions"]}
        assert found == {**dict.fromkeys(names), "empty.txt": "is empty (0 bytes)"}
    else:
        rows = list(csv.DictReader(io.StringIO(told)))
        assert len(rows) == 2 * len(names) + 1
        assert sum(bool(row["error"]) for row in rows) == 1
        assert {row["file"] for row in rows} >= {"new\\nline.txt", "\\udcff.txt", "plain.txt"}
    assert unibind("predict", "plain.txt", *asked, folder=tmp_path)[0] == 0
    assert unibind("predict", "plain.txt", "--json", "--csv", folder=tmp_path)[0] == 2
