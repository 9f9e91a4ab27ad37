"""Recognition of files, by a project and among bare names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from pipeline import predict
from pipeline.predict import Answer, Hit, Prediction, predict_zero_shot
from pipeline.project import Project, load_project
from pipeline.temperatures import Temperatures
from trainer.geometry import unit_rows
from trainer.records import Centers


def test_a_text_file_is_placed_by_its_words(tmp_path: Path) -> None:
    """Text needs no other encoder than the text encoder."""
    note = tmp_path / "note.txt"
    note.write_text("A small dog barks and wags its tail.", encoding="utf-8")
    (prediction,) = predict_zero_shot([(note, None)], "puppy, airplane, teapot", top=2)
    assert prediction.answers[0].category == "puppy"
    assert len(prediction.answers) == 2
    assert prediction.answers[0].probability is None
    assert "bare names" in (prediction.uncalibrated or "")


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


class _PlantedSpace:
    """Three categories with two centers each; every file is a picture at the same place."""

    vector_1D = unit_rows(np.array([[0.9, 0.5, 0.1]], dtype=np.float32))
    vectors_MD = unit_rows(
        np.array(
            [[1, 0, 0], [1, 0.5, 0], [0, 1, 0], [0.9, 0.55, 0.1], [0, 0, 1], [0, 1, 1]], dtype=np.float32
        )
    )

    def __init__(self, project: Project) -> None:
        self.kb = SimpleNamespace(names=("ash", "beech", "cedar"), folder=Path("kb"))

    def place(self, modality: str, source: Path) -> tuple[np.ndarray, str]:
        return self.vector_1D, predict.ALIGNED

    def centers(self, kb: object) -> Centers:
        owners = np.array([0, 0, 1, 1, 2, 2])
        return Centers(("a", "b", "c"), tuple(f"r{i}" for i in range(6)), owners, self.vectors_MD)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prediction]:
    """`planted(scorer, temperatures)`: what a project with that scorer makes of a picture."""

    def one(scorer: str, temperatures: Temperatures) -> Prediction:
        path = tmp_path / "unibind.toml"
        section = f'[evaluate]\nscorer = "{scorer}"\n'
        path.write_text(f'name = "x"\n[data]\nmanifest = "m.csv"\n{section}', encoding="utf-8")
        project = load_project(path)
        monkeypatch.setattr(predict, "_Space", _PlantedSpace)
        monkeypatch.setattr(predict, "load_centers", _PlantedSpace(project).centers)
        monkeypatch.setattr(
            predict, "center_texts", lambda folder, rows: {f"r{i}": f"text {i}" for i in range(6)}
        )
        monkeypatch.setattr(predict, "load_temperatures", lambda project: temperatures)
        (prediction,) = predict.predict_files(project, [(tmp_path / "a.png", None)], top=2)
        return prediction

    return one


@pytest.mark.parametrize(("scorer", "best"), [("nearest", "beech"), ("mean", "ash"), ("medoid", "ash")])
def test_a_project_predicts_by_its_scorer_with_probabilities(
    planted: Callable[..., Prediction], scorer: str, best: str
) -> None:
    """The project's scorer ranks; shares are of all categories, not of those shown."""
    row = {"modality": "image", "model": "aligned", "temperature": 0.25, "n_fit": 9}
    prediction = planted(scorer, Temperatures([row]))
    assert prediction.uncalibrated is None
    assert prediction.answers[0].category == best
    cosines_CK = (_PlantedSpace.vectors_MD.astype(np.float64) @ _PlantedSpace.vector_1D[0]).reshape(3, 2)
    means_CD = _PlantedSpace.vectors_MD.reshape(3, 2, 3).sum(axis=1)
    score_C = {
        "nearest": cosines_CK.max(axis=1),
        "medoid": cosines_CK[:, 0],  # of two, either is as near to the other: the first
        "mean": (unit_rows(means_CD) @ _PlantedSpace.vector_1D[0]).astype(np.float64),
    }[scorer]
    odds_C = np.exp(score_C / 0.25)
    for answer in prediction.answers:
        place = ("ash", "beech", "cedar").index(answer.category)
        assert answer.score == pytest.approx(score_C[place], abs=1e-6)
        assert answer.probability == pytest.approx(odds_C[place] / odds_C.sum(), abs=1e-5)
        nearest = 2 * place + int(cosines_CK[place].argmax())
        assert answer.why == f"text {nearest}"


def test_without_a_temperature_the_probability_is_null_with_the_reason(
    planted: Callable[..., Prediction],
) -> None:
    """The answers stand, without probabilities, and the last line says why."""
    prediction = planted("nearest", Temperatures(missing="not calibrated yet; run `unibind evaluate`"))
    assert [answer.probability for answer in prediction.answers] == [None, None]
    assert (
        prediction.told().splitlines()[-1] == "  no probability: not calibrated yet; run `unibind evaluate`"
    )


def test_predictions_and_hits_are_told_in_lines() -> None:
    """A long reason is cut to one line; an error takes the place of answers."""
    sure = Answer("steel torus", 0.5, "a ring", 0.1234)
    assert Prediction("a.png", "image", "", (sure,)).told().splitlines()[1] == (
        "  1  steel torus  0.500   12.3%  a ring"
    )
    answer = Answer("steel torus", 0.5, "a ring\nof steel " + "x" * 200)
    lines = Prediction("a.png", "image", "zero-shot", (answer,)).told().splitlines()
    assert lines[0] == "a.png  (image, zero-shot)"
    assert lines[1].startswith("  1  steel torus  0.500  a ring of steel xxx")
    assert lines[1].endswith("…")
    assert Prediction("a.png", "image", "", error="torn").told() == "a.png: error: torn"
    assert Hit("s", "audio", "dog", 0.25).told() == "0.250  audio    s  (dog)"
