"""Recognition of files, by a project and among bare names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError, KnowledgeBaseError, SampleError
from pipeline.predict import paths as predict_paths
from pipeline.predict import recognise as predict
from pipeline.predict.answers import Favoured, Hit, NamedCategory, OtherAnswer, Prediction
from pipeline.predict.evaluated import Evaluated, Temperatures
from pipeline.predict.names import category_names
from pipeline.predict.paths import files_in, unreadable
from pipeline.predict.zero_shot import predict_zero_shot
from pipeline.project import ProjectFile, load_project
from trainer.records import Centers
from trainer.score.geometry import unit_rows


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
    for name in files[:2]:
        (tmp_path / name).write_bytes(b"not looked at")
    given = [*((tmp_path / name, None) for name in files), (note, None)]
    predictions = list(predict_zero_shot(given, "teapot, dog"))
    assert "without training" in (predictions[0].error or "")
    assert "--modality" in (predictions[1].error or "")
    assert predictions[2].error == "no such file"
    assert predictions[3].answers[0].category == "teapot"


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ("", "no name in it"),
        (",, ,", "no name in it"),
        ("dog", "not a file, but one name, which every file would get"),
        ("dog, Dog ,", "not a file, but one name, which every file would get"),
        ("no/such/file.txt", "not a file, but one name"),
        (".", "a folder, which every file would get"),
        ("x" * 300, "not a file, but one name"),
    ],
)
def test_a_single_name_is_no_choice(tmp_path: Path, categories: str, words: str) -> None:
    """No name, one name, a folder or a file that is not there is refused before any model is loaded."""
    with pytest.raises(InputError, match=words):
        list(predict_zero_shot([(tmp_path / "a.png", None)], categories, say=lambda note: None))


def test_names_are_taken_once_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    """Empty and repeated names make notes; a list longer than a file name may be is a list."""
    notes: list[str] = []
    assert category_names("dog,,Cat, DOG ,cafe\u0301,caf\u00e9", notes.append) == ["dog", "Cat", "cafe\u0301"]
    assert [note.split(": ", 1)[1] for note in notes] == [
        "1 empty name left out",
        "2 repeated, each taken once: 'dog', 'cafe\u0301'",
    ]
    many = ",".join(f"thing number {number}" for number in range(60))
    assert len(category_names(many, notes.append)) == 60
    one = tmp_path / "one.txt"
    one.write_text("dog\n", encoding="utf-8")
    with pytest.raises(InputError, match="one name, which every file would get"):
        category_names(str(one), notes.append)
    assert len(notes) == 2


def test_a_folder_stands_for_its_files_and_says_what_it_left_out(tmp_path: Path) -> None:
    """Files of sub-folders too, in order; the rest is counted by reason; an empty folder is an error."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/c.txt", "notes.md", ".hidden.txt"):
        (folder / name).write_text("a teapot", encoding="utf-8")
    (folder / "again").symlink_to(folder / "deep")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    (tmp_path / "empty").mkdir()
    notes: list[str] = []
    given = [(folder, None), (tmp_path / "empty", None)]
    found = list(predict_zero_shot(given, "teapot, dog", say=notes.append))
    assert [Path(each.file).relative_to(tmp_path).as_posix() for each in found] == [
        "in/a.txt",
        "in/b.txt",
        "in/deep/c.txt",
        "empty",
    ]
    assert [each.error for each in found] == [None] * 3 + ["no file in this folder can be recognised"]
    assert notes[0] == (
        f"{folder}: 3 files; skipped: hidden 1, links to folders 1, links to nothing 1,"
        " unknown ending (.md) 1"
    )
    assert len(files_in(folder, modality="text").files) == 4


def test_a_folder_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than the bound: the first ones, the folder as an error, and a note."""
    monkeypatch.setattr(predict_paths, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("x", encoding="utf-8")
    notes: list[str] = []
    found = list(predict_paths.each_file([(tmp_path, None)], notes.append))
    assert [path.name for path, _, _ in found] == ["a.txt", "b.txt", tmp_path.name]
    assert found[-1][2] == "holds more than 2 files; name its sub-folders one by one"
    assert notes == [f"{tmp_path}: 2 files; the rest is left out"]


def test_why_a_path_is_no_file(tmp_path: Path) -> None:
    """Missing, empty, a dead link, a ring of links, a pipe, a name that is too long: each its own reason."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "dead.png").symlink_to("nowhere")
    (tmp_path / "ring.png").symlink_to("ring.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "good.png").write_bytes(b"x")
    reasons = {
        "good.png": None,
        "missing.png": "no such file",
        "no/where.png": f"no such file; the path exists up to {tmp_path.resolve()}",
        "empty.png": "is empty (0 bytes)",
        "dead.png": "is a link to nowhere, which does not exist",
        "ring.png": "cannot be read (Too many levels of symbolic links)",
        "pipe.png": "is a pipe, a socket or a device; save its content as a file",
        "x" * 300: "cannot be read (File name too long)",
        "null\0byte.png": "is not a path",
    }
    assert {name: unreadable(tmp_path / name) for name in reasons} == reasons


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason, in words; here by a system that refuses to open (root may open anything)."""
    (tmp_path / "a.png").write_bytes(b"x")

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert unreadable(tmp_path / "a.png") == "cannot be read (Permission denied)"


def test_a_project_that_never_ran_says_what_to_run(tmp_path: Path) -> None:
    """One line with the command, not the name of an inner file."""
    path = tmp_path / "unibind.toml"
    path.write_text('name = "x"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    project = load_project(path)
    for ask in (
        lambda: list(predict.predict_files(project, [(tmp_path / "a.png", None)])),
        lambda: predict.retrieve_samples(project, "words"),
    ):
        with pytest.raises(KnowledgeBaseError, match="no knowledge base yet; run `unibind run --project"):
            ask()


def test_a_query_is_a_file_or_words_never_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a file and is none is refused; a folder's name and long words are words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    notes: list[str] = []

    def file_of(query: str, modality: str | None = None) -> Path | None:
        return predict._file_of(query, modality, notes.append)

    assert file_of("a.png") == Path("a.png")
    assert file_of("a small dog") is None
    assert file_of("many words " * 50) is None
    assert notes == []
    assert file_of("dog") is None
    assert notes == ["dog is a folder or a device, so it is used as a text"]
    with pytest.raises(SampleError, match=r"b\.png: no such file; --modality text searches"):
        file_of("b.png")
    assert file_of("b.png", "text") is None
    with pytest.raises(SampleError, match="no such file"):
        file_of("a bell", "audio")
    with pytest.raises(InputError, match="the query is empty"):
        file_of("  ")


class _PlantedSpace:
    """Three categories with two centers each; every file is a picture at the same place."""

    both = False  # whether the zero-shot encoder takes pictures
    untrained_1D = unit_rows(np.array([[0.1, 0.2, 0.9]], dtype=np.float32))
    vector_1D = unit_rows(np.array([[0.9, 0.5, 0.1]], dtype=np.float32))
    vectors_MD = unit_rows(
        np.array(
            [[1, 0, 0], [1, 0.5, 0], [0, 1, 0], [0.9, 0.55, 0.1], [0, 0, 1], [0, 1, 1]], dtype=np.float32
        )
    )

    def __init__(self, project: ProjectFile) -> None:
        self.kb = SimpleNamespace(names=("ash", "beech", "cedar"), folder=Path("kb"))
        self.heads = None

    def place_by_model(self, modality: str, source: Path, *, use: str) -> dict[str, np.ndarray]:
        both = {"zero_shot": self.untrained_1D, "aligned": self.vector_1D}
        return both if self.both and use != "heads" else {"aligned": self.vector_1D}

    def centers(self, kb: object) -> Centers:
        owners = np.array([0, 0, 1, 1, 2, 2])
        return Centers(("a", "b", "c"), tuple(f"r{i}" for i in range(6)), owners, self.vectors_MD)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prediction]:
    """`planted(scorer, temperatures)`: what a project with that scorer makes of a picture."""

    def one(
        scorer: str,
        temperatures: Temperatures,
        categories: int = 3,
        trained: tuple[bool, ...] = (True, True, True),
        both: bool = False,
        **evaluated: Any,
    ) -> Prediction:
        path = tmp_path / "unibind.toml"
        section = f'[evaluate]\nscorer = "{scorer}"\n'
        path.write_text(f'name = "x"\n[data]\nmanifest = "m.csv"\n{section}', encoding="utf-8")
        project = load_project(path)
        monkeypatch.setattr(predict, "Space", _PlantedSpace)
        centers = _PlantedSpace(project).centers(None)
        few = centers.of(np.arange(3) < categories)
        monkeypatch.setattr(predict, "load_centers", lambda kb: few)
        monkeypatch.setattr(
            predict, "center_texts", lambda folder, rows: {f"r{i}": f"text {i}" for i in range(6)}
        )
        monkeypatch.setattr(_PlantedSpace, "both", both)
        monkeypatch.setattr(predict, "load_evaluated", lambda project: Evaluated(temperatures, **evaluated))
        monkeypatch.setattr(predict, "seen_categories", lambda kb: np.array(trained))
        (tmp_path / "a.png").write_bytes(b"not looked at")
        given = [(tmp_path / "a.png", None)]
        (prediction,) = predict.predict_files(project, given, top=2, say=lambda note: None)
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
    prediction = planted("nearest", Temperatures(missing="not evaluated yet; run `unibind evaluate`"))
    assert [answer.probability for answer in prediction.answers] == [None, None]
    assert (
        prediction.to_text().splitlines()[-1] == "  no probability: not evaluated yet; run `unibind evaluate`"
    )


def test_the_constant_is_off_trained_categories_and_said_where_it_decides(
    planted: Callable[..., Prediction],
) -> None:
    """Beech wins by its score; with 0.05 off it and ash, cedar's score stays, so a larger one is needed."""
    cosine_C = (_PlantedSpace.vectors_MD.astype(np.float64) @ _PlantedSpace.vector_1D[0]).reshape(3, 2).max(1)
    row = {"modality": "image", "model": "aligned", "temperature": 0.25, "n_fit": 9}
    trained = (True, True, False)
    for constant, best in ((0.05, "beech"), (0.6, "cedar")):
        constants = {("image", "aligned"): constant}
        found = planted("nearest", Temperatures([row]), trained=trained, constants=constants)
        shifted_C = cosine_C - constant * np.array(trained)
        assert found.answers[0].category == best
        assert found.answers[0].score == pytest.approx(shifted_C.max(), abs=1e-6)
        odds_C = np.exp(shifted_C / 0.25)
        assert found.answers[0].probability == pytest.approx(odds_C.max() / odds_C.sum(), abs=1e-5)
        assert found.favoured == (None if best == "beech" else Favoured("beech", "b", 0.6))
    assert "favoured: cedar has no train sample, so 0.600 is taken off trained categories; else beech" in (
        found.to_text()
    )
    every = planted("nearest", Temperatures([row]), constants={("image", "aligned"): 0.6})
    assert every.answers[0].category == "beech"  # all are trained: nothing to be fair to
    assert every.answers[0].score == pytest.approx(cosine_C.max(), abs=1e-6)


@pytest.mark.parametrize("use", ["auto", "zero-shot", "mean", "heads"])
def test_the_other_models_stand_beside_the_one_that_is_used(
    planted: Callable[..., Prediction], use: str
) -> None:
    """Zero-shot says cedar, the heads say beech; without an evaluation `auto` is the heads."""
    found = planted("nearest", Temperatures(), both=True, use=use)
    scores = {
        model: (_PlantedSpace.vectors_MD.astype(np.float64) @ query_1D[0]).reshape(3, 2).max(axis=1)
        for model, query_1D in (
            ("zero-shot", _PlantedSpace.untrained_1D),
            ("aligned heads", _PlantedSpace.vector_1D),
        )
    }
    scores["mean of both"] = (scores["zero-shot"] + scores["aligned heads"]) / 2
    used = {"zero-shot": "zero-shot", "mean": "mean of both"}.get(use, "aligned heads")
    assert found.model == used
    names = ("ash", "beech", "cedar")
    assert found.answers[0].category == names[int(scores[used].argmax())]
    assert found.answers[0].score == pytest.approx(scores[used].max(), abs=1e-6)
    others = {each.model: each for each in found.others}
    assert set(others) == (set() if use == "heads" else set(scores) - {used})
    for model, each in others.items():
        assert each.category == names[int(scores[model].argmax())]
        assert each.score == pytest.approx(scores[model].max(), abs=1e-6)


def test_one_category_has_no_probability(planted: Callable[..., Prediction]) -> None:
    """The softmax over one category is 100%, which says nothing of the file."""
    row = {"modality": "image", "model": "aligned", "temperature": 0.25, "n_fit": 9}
    prediction = planted("nearest", Temperatures([row]), categories=1)
    assert prediction.answers[0].probability is None
    assert prediction.uncalibrated == "the project has only one category"


def test_predictions_and_hits_are_told_in_lines() -> None:
    """A long reason is cut to one line; an error takes the place of answers."""
    sure = NamedCategory("steel torus", 0.5, "a ring", 0.1234)
    assert Prediction("a.png", "image", "", (sure,)).to_text().splitlines()[1] == (
        "  1  steel torus  0.500   12.3%  a ring"
    )
    answer = NamedCategory("steel torus", 0.5, "a ring\nof steel " + "x" * 200)
    lines = Prediction("a.png", "image", "zero-shot", (answer,)).to_text().splitlines()
    assert lines[0] == "a.png  (image, zero-shot)"
    assert lines[1].startswith("  1  steel torus  0.500  a ring of steel xxx")
    assert lines[1].endswith("…")
    other = OtherAnswer("zero-shot", "steel\x1bcone", 0.25, "c")
    told = Prediction("a.png", "image", "aligned heads", (answer,), others=(other, other)).to_text()
    assert "  beside it: zero-shot steel\\x1bcone 0.250; zero-shot steel\\x1bcone 0.250" in told
    assert Prediction("a.png", "image", "", error="torn").to_text() == "a.png: error: torn"
    assert Hit("s", "audio", "dog", 0.25).to_text() == "0.250  audio    s  (dog)"
