"""Search by several queries at once, and the answers for all samples of a project."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from pipeline.api import Project
from pipeline.predict.answers import Hit
from pipeline.predict.recognise import recognise
from pipeline.predict.search import ANSWERS, PlacedPart, Query, Searcher
from tests.planted import register_encoder
from trainer.score.geometry import unit_rows


@pytest.fixture(scope="module")
def project(finished_cups: Path) -> Project:
    """The finished run of tests/planted.py."""
    register_encoder()
    return Project.open(finished_cups)


@pytest.fixture(scope="module")
def searcher(project: Project) -> Searcher:
    """It, loaded to search."""
    return project.searcher()


@pytest.fixture(scope="module")
def both(finished_cups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose pictures have two models: an untrained encoder beside the head."""
    register_encoder()
    folder = Path(shutil.copytree(finished_cups.parent, tmp_path_factory.mktemp("both") / "cups"))
    path = folder / finished_cups.name
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('zero_shot = "off"', 'zero_shot = "words"'), encoding="utf-8")
    Project.open(path).run()
    return path


def _asks(found: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.sample_id, hit.score) for hit in found]


@pytest.mark.parametrize("use", ["auto", "heads", "zero-shot", "mean"])
@pytest.mark.parametrize("name", ["red-cup-7.png", "red-cup-7.txt"])
def test_a_file_is_retrieve_and_predict(both: Path, use: str, name: str) -> None:
    """The same hits and answers as the API's, of every modality, whichever model [predict] asks for.

    So is the stored sample of that file, but for its vectors, which are stored as float16.
    """
    project = Project.open(both, changes={"predict": {"use": use}})
    file = project.file.data_root / "media" / name
    searcher = project.searcher()
    part = searcher.place(Query("image" if name.endswith("png") else "text", file))
    found = searcher.search([part], top=5)
    for modality, hits in found.hits.items():
        theirs = project.retrieve(file, into=modality, k=5)  # type: ignore[arg-type]
        assert _asks(hits) == _asks(theirs)
    (prediction,) = project.predict(file, say=lambda note: None)
    assert found.answers == prediction.answers and part.model == prediction.model
    assert found.searched == 60

    sample_id = "red-cup-7" if name.endswith("png") else "red-cup-7-note"
    stored = searcher.place(Query(None, sample_id, is_sample=True))
    assert stored.model == part.model and set(stored.by_model) >= set(part.by_model)
    (row,) = [row for row in searcher.recognised().to_pylist() if row["sample_id"] == sample_id]
    best = searcher.answers([stored], top=1)[0]
    assert (row["named"], row["score"]) == (best.category_id, pytest.approx(best.score, abs=1e-6))
    for each in (row["score"], best.score):
        assert each == pytest.approx(prediction.answers[0].score, abs=2e-3)
    if prediction.answers[0].probability is not None:
        assert row["probability"] == pytest.approx(prediction.answers[0].probability, abs=2e-3)
    texts = searcher.recogniser.texts
    assert texts[row["why"]] == best.why


def test_words_are_placed_as_retrieve_places_them(project: Project, searcher: Searcher) -> None:
    """The same hits; the categories have no probability, and nothing is taken off trained ones."""
    found = searcher.search([searcher.place(Query("text", "a red cup"))], top=5)
    for modality, hits in found.hits.items():
        assert _asks(hits) == _asks(project.retrieve("a red cup", into=modality, k=5))  # type: ignore[arg-type]
    assert found.answers[0].category_id == "red-cup"
    assert {answer.probability for answer in found.answers} == {None}


def test_the_constant_is_taken_off_stored_samples_too(project: Project, searcher: Searcher) -> None:
    """With a constant that outweighs every score, a file and its stored sample get the untrained category."""
    own = searcher.recogniser
    seen_C = own.seen_C.copy()
    seen_C[own.space.kb.index["blue-ball"]] = False
    constants = {("image", model): 5.0 for model in ("zero_shot", "aligned", "mean")}
    evaluated = replace(own.evaluated, constants=constants)
    strict = replace(searcher, recogniser=replace(own, seen_C=seen_C, evaluated=evaluated))
    file = project.file.data_root / "media" / "red-cup-7.png"
    (prediction,) = recognise(strict.recogniser, [(file, None)], top=3, say=lambda note: None)
    sample = strict.place(Query(None, "red-cup-7", is_sample=True))
    for answers in (
        prediction.answers,
        strict.answers([strict.place(Query("image", file))], top=3),
        strict.answers([sample], top=3),
    ):
        assert answers[0].category_id == "blue-ball"
    rows = {row["sample_id"]: row for row in strict.recognised().to_pylist()}
    assert rows["red-cup-7"]["named"] == "blue-ball" and rows["red-cup-7"]["second"] == "red-cup"
    assert prediction.favoured is not None and prediction.favoured.category_id == "red-cup"


def test_a_sample_is_its_own_query(searcher: Searcher) -> None:
    """Its stored vector is used, and it can be left out of the hits."""
    placed = searcher.place(Query(None, "red-cup-1", is_sample=True))
    best = searcher.search([placed], top=1).hits["image"][0]
    assert best.sample_id == "red-cup-1" and best.score == pytest.approx(1)
    other = searcher.search([placed], top=3, without=["red-cup-1"]).hits["image"]
    assert len(other) == 3 and "red-cup-1" not in {hit.sample_id for hit in other}
    with pytest.raises(InputError, match="no sample 'nobody'"):
        searcher.place(Query(None, "nobody", is_sample=True))


def test_parts_are_added_as_unit_vectors(searcher: Searcher) -> None:
    """Two parts search by the unit vector of their sum, in any order."""
    parts = [
        searcher.place(Query("text", "a red cup")),
        searcher.place(Query(None, "blue-ball-1", is_sample=True)),
    ]
    sum_1D = unit_rows(parts[0].vector_1D + parts[1].vector_1D)
    both = searcher.search(parts, top=4)
    alone = searcher.search([PlacedPart(sum_1D, "x")], top=4)
    assert both.hits == alone.hits and both.answers == alone.answers
    assert searcher.search(parts[::-1], top=4).hits == both.hits
    assert len(both.models) == 2
    with pytest.raises(InputError, match="empty"):
        searcher.search([])


def test_every_sample_is_recognised_as_predict_does(project: Project, searcher: Searcher) -> None:
    """One row for each sample, with the answer that `predict` gives for its file (stored as float16)."""
    table = searcher.recognised()
    assert table.schema == ANSWERS and len(table) == 60
    rows = {row["sample_id"]: row for row in table.to_pylist()}
    for sample in ("red-cup-7", "blue-ball-3"):
        (prediction,) = project.predict(project.file.data_root / "media" / f"{sample}.png")
        best, second = prediction.answers[:2]
        row = rows[sample]
        assert (row["named"], row["second"]) == (best.category_id, second.category_id)
        assert row["score"] == pytest.approx(best.score, abs=2e-3)
        assert row["lead"] == pytest.approx(best.score - second.score, abs=2e-3)
        if best.probability is not None:
            assert row["probability"] == pytest.approx(best.probability, abs=2e-3)
    assert np.isfinite(table["score"].to_numpy()).all()
