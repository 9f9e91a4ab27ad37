"""Search by several queries at once, and the answers for all samples of a project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from pipeline.api import Project
from pipeline.predict.search import ANSWERS, Part, Query, Searcher
from tests.planted import register_encoder
from trainer.localize.centers import load_centers
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


def test_one_query_is_retrieve_and_predict(project: Project, searcher: Searcher) -> None:
    """The same hits and answers as the API's, of every modality."""
    picture = project.file.data_root / "media" / "red-cup-1.png"
    placed = searcher.place(Query("image", picture))
    found = searcher.search([placed], top=5)
    for modality, hits in found.hits.items():
        theirs = project.retrieve(picture, into=modality, k=5)  # type: ignore[arg-type]
        assert [(hit.sample_id, hit.score) for hit in hits] == [(hit.sample_id, hit.score) for hit in theirs]
    (prediction,) = project.predict(picture)
    assert found.answers == prediction.answers and searcher.predict(placed) == prediction
    assert found.searched == 60


def test_words_find_what_retrieve_finds(project: Project, searcher: Searcher) -> None:
    """Words are placed as texts about categories are, for the samples and for the categories."""
    found = searcher.search([searcher.place(Query("text", "a red cup"))], top=5)
    for modality, hits in found.hits.items():
        theirs = project.retrieve("a red cup", into=modality, k=5)  # type: ignore[arg-type]
        assert [(hit.sample_id, hit.score) for hit in hits] == [(hit.sample_id, hit.score) for hit in theirs]
    assert found.prediction is None and found.answers[0].category_id == "red-cup"
    with pytest.raises(InputError, match="modality text"):
        searcher.place(Query("audio", "a red cup"))


def test_other_centers_give_other_answers(project: Project, searcher: Searcher) -> None:
    """Only some samples, with centers that are not saved: without those of a category it is no answer."""
    every = load_centers(searcher.recogniser.space.kb)
    without = every.take(every.category_N != every.categories.index("red-cup"))
    found = searcher.recognised(only=["red-cup-7", "blue-ball-3"], centers=without).to_pylist()
    named = {row["sample_id"]: row["named"] for row in found}
    assert named.keys() == {"red-cup-7", "blue-ball-3"}
    assert "red-cup" not in named.values()
    assert searcher.recognised(centers=every) == searcher.recognised()


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
    alone = searcher.search([Part(sum_1D, "x")], top=4)
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
