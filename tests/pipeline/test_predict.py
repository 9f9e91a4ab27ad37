"""Recognition of files among bare names, without a project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from pipeline.predict import Answer, Hit, Prediction, predict_zero_shot


def test_a_text_file_is_placed_by_its_words(tmp_path: Path) -> None:
    """Text needs no other encoder than the text encoder."""
    note = tmp_path / "note.txt"
    note.write_text("A small dog barks and wags its tail.", encoding="utf-8")
    (prediction,) = predict_zero_shot([(note, None)], "puppy, airplane, teapot", top=2)
    assert prediction.answers[0].category == "puppy"
    assert len(prediction.answers) == 2


def test_a_list_of_names_in_a_file_is_read(tmp_path: Path) -> None:
    """--categories takes a file with one name a line; every name is a candidate."""
    names = tmp_path / "names.txt"
    names.write_text("puppy\nairplane\nteapot\n", encoding="utf-8")
    picture = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    (prediction,) = predict_zero_shot([(picture, None)], str(names), top=5)
    assert {answer.category for answer in prediction.answers} == {"puppy", "airplane", "teapot"}


def test_what_cannot_be_placed_is_an_error_beside_what_can(tmp_path: Path) -> None:
    """A sound, an unknown ending and a missing file are told one by one; the text among them is answered."""
    note = tmp_path / "note.txt"
    note.write_text("tea", encoding="utf-8")
    files = ["a.wav", "b.xyzzy", "missing.png"]
    given = [*((tmp_path / name, None) for name in files), (note, None)]
    predictions = list(predict_zero_shot(given, "teapot, dog"))
    assert "without training" in (predictions[0].error or "")
    assert "--modality" in (predictions[1].error or "")
    assert "missing.png" in (predictions[2].error or "")
    assert predictions[3].answers[0].category == "teapot"


@pytest.mark.parametrize("categories", ["", "dog", "no/such/file.txt"])
def test_a_single_name_is_no_choice(tmp_path: Path, categories: str) -> None:
    """One name, or a file that is not there, is refused before any model is loaded."""
    with pytest.raises(InputError, match="not a file"):
        list(predict_zero_shot([(tmp_path / "a.png", None)], categories))


def test_predictions_and_hits_are_told_in_lines() -> None:
    """A long reason is cut to one line; an error takes the place of answers."""
    answer = Answer("steel torus", 0.5, "a ring\nof steel " + "x" * 200)
    lines = Prediction("a.png", "image", "zero-shot", (answer,)).told().splitlines()
    assert lines[0] == "a.png  (image, zero-shot)"
    assert lines[1].startswith("  1  steel torus  0.500  a ring of steel xxx")
    assert lines[1].endswith("…")
    assert Prediction("a.png", "image", "", error="torn").told() == "a.png: error: torn"
    assert Hit("s", "audio", "dog", 0.25).told() == "0.250  audio    s  (dog)"
