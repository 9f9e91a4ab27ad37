"""The Python API, on a small finished project."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pipeline
from data.errors import InputError, KnowledgeBaseError, MissingDependencyError, ProjectError, SampleError
from pipeline import Project
from pipeline.api import ResultTable, outside_event_loop
from pipeline.predict.recognise import predict_files, retrieve_samples
from pipeline.run.jobs import STAGE_NAMES
from trainer.align.heads import load_heads
from trainer.inputs import load_controls, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.score.scoring import category_scores

HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def project(finished_cups: Path) -> Project:
    """Opened once; only read."""
    return Project.open(finished_cups)


def test_importing_the_package_imports_nothing_else() -> None:
    """The command line's start-up depends on it; `Project` is loaded when it is asked for."""
    code = (
        "import sys, pipeline; before = set(sys.modules);"
        "assert not {'torch', 'numpy', 'pyarrow', 'duckdb', 'pydantic', 'pipeline.api'} & before;"
        "from pipeline import Project; assert Project.__module__ == 'pipeline.api'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    with pytest.raises(AttributeError, match="no attribute 'Projekt'"):
        pipeline.Projekt  # noqa: B018


def test_a_finished_project_is_skipped_stage_by_stage(project: Project) -> None:
    """`run` gives each stage's result, and a table of them; `until` ends it there."""
    done = project.run(until="localize")
    assert [each.name for each in done] == list(STAGE_NAMES[: STAGE_NAMES.index("localize") + 1])
    assert all(each.skipped for each in done)
    assert done.arrow().column_names == ["stage", "seconds", "skipped", "why"]
    assert repr(done).splitlines()[2].startswith("world")
    with pytest.raises(InputError, match="no stage 'localise'; the stages are: world, ingest"):
        project.run(until="localise")


def test_a_stage_that_the_project_has_off_runs_where_it_is_named(cups: Path) -> None:
    """As `unibind train` does: `until="train"` trains, though a whole run would not."""
    off = Project.open(cups, changes={"train": {"enabled": False}})
    assert "train" not in [each.name for each in off.run(until="localize")]
    assert off.run(until="train")[-1].name == "train"


def test_it_runs_from_inside_an_event_loop(cups: Path) -> None:
    """As in a notebook, whose cells run inside one: the describers start one of their own."""
    shutil.rmtree(cups.parent / "runs")
    project = Project.open(cups)

    async def cell() -> list[str]:
        return [each.name for each in project.run(until="describe-categories")]

    assert asyncio.run(cell())[-1] == "describe-categories"
    assert len(project.kb.sql("SELECT 1 FROM v_descriptions WHERE status = 'ok'")) == 24


def test_an_interrupt_ends_what_runs_beside_an_event_loop() -> None:
    """Ctrl-C reaches the main thread only; the work in the other one ends, too."""
    ended = threading.Event()

    def work() -> None:
        try:
            os.kill(os.getpid(), 2)
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    async def cell() -> None:
        with pytest.raises(KeyboardInterrupt):
            outside_event_loop(work)

    # Not asyncio.run, which takes SIGINT for itself; a notebook's loop does not.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(cell())
    finally:
        loop.close()
    assert ended.is_set()


def test_sql_gives_all_rows_and_writes_nothing(project: Project) -> None:
    """As Arrow, dicts and a DuckDB relation; a statement that writes is refused."""
    answer = project.kb.sql("SELECT sample_id, split FROM v_samples ORDER BY sample_id")
    assert len(answer) == 60
    assert answer.rows()[0] == {"sample_id": "blue-ball-0", "split": "test"}
    assert answer.arrow().num_rows == 60
    assert answer.relation().filter("split = 'val'").aggregate("count(*)").fetchall() == [(5,)]
    assert repr(answer).endswith("… and 40 more; .rows(), .arrow() or .df() give all")
    with pytest.raises(InputError, match="one statement that only reads"):
        project.kb.sql("DROP VIEW v_samples")
    with pytest.raises(InputError, match="file"):
        project.kb.sql("WITH x AS (COPY v_samples TO 'x.csv') SELECT 1")
    with pytest.raises(InputError, match="the views are v_categories"):
        project.kb.sql("FROM v_sample")
    assert "v_nearest(text, k := 10)" in [row["name"] for row in project.kb.views.rows()]


def test_every_row_comes_however_many(project: Project) -> None:
    """The command line stops at 10,000 rows to print; here nothing is cut."""
    assert len(project.kb.sql("FROM range(25_000)")) == 25_000


def test_a_data_frame_needs_pandas(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, one line says what to install and what needs nothing."""
    monkeypatch.setattr("pipeline.api.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        project.kb.views.df()


def test_what_a_notebook_shows_is_escaped() -> None:
    """Texts come from models and strangers: no markup of theirs, and no control character."""
    table = ResultTable(pa.table({HOSTILE: [HOSTILE], "n": [1], "x": [0.123456], "v": [[0.5] * 20]}))
    for shown in (table._repr_html_(), repr(table)):
        assert "\x1b" not in shown and "\\x1b[31m" in shown
    assert "<script" not in table._repr_html_()
    assert "&lt;script&gt;" in table._repr_html_()
    assert "0.123 " in repr(table) and "[0.5, 0.5, 0.5, … 20 values]" in repr(table)
    empty = ResultTable(pa.table({"a": pa.array([], pa.string())}))
    assert repr(empty) == "(no rows)"
    assert "<th" in empty._repr_html_()


def test_predictions_are_those_of_the_command(project: Project) -> None:
    """One file or several, or a folder; an unreadable file has its error in its place."""
    media = project.file.path.parent / "media"
    photo, nope = media / "green-cup-7.png", media / "nope.png"
    notes: list[str] = []
    found = project.predict([photo, str(nope)], top=2, say=notes.append)
    assert list(found) == list(predict_files(project.file, [(photo, None), (nope, None)], top=2))
    assert len(found) == 2 and len(found.table) == 3
    assert found[1].error == "no such file"
    assert found.table.rows()[0]["category"] == found[0].answers[0].category
    assert "no such file" in found._repr_html_()
    assert len(project.predict(media, top=1, say=notes.append)) == 60
    trust = "image: heads only; there is no zero-shot encoder. Right: "
    assert [note.startswith(trust) for note in notes] == [True, False, True]  # once for each call
    with pytest.raises(InputError, match="top = 0: give 1 or more"):
        project.predict(photo, top=0)


def test_hits_are_those_of_the_command(project: Project) -> None:
    """By words and by file; `into` keeps to a modality."""
    photo = project.file.path.parent / "media" / "green-cup-7.png"
    for query in ("a green cup", photo):
        hits = project.retrieve(query, into="image", k=4)
        assert list(hits) == retrieve_samples(project.file, str(query), into="image", top=4)
        assert {hit.modality for hit in hits} == {"image"}
    assert {hit.modality for hit in project.retrieve("a green cup", k=60)} == {"image", "text"}
    with pytest.raises(SampleError, match="no such file"):
        project.retrieve("nope.png")


def test_answers_and_hits_are_found_in_the_shared_space(project: Project) -> None:
    """A file through its head against centers without their mean; words as texts, or as a text sample's."""
    heads = load_heads(project.file.run)
    base = open_kb(project.file.kb)
    ids, features_ND = project.vectors("image")
    photo = features_ND[[ids.index("green-cup-7")]]
    centers = load_centers(base)
    score_C = category_scores(heads.map("image", photo), heads.represent(centers))[0]
    stacking = json.loads((project.file.run / "evaluation.json").read_text(encoding="utf-8"))["stacking"]
    constants = {(row["modality"], row["model"]): row["constant"] for row in stacking}
    expected_C = score_C - np.where(seen_categories(base), constants.get(("image", "aligned"), 0.0), 0.0)
    (answer,) = project.predict(project.file.path.parent / "media" / "green-cup-7.png", top=3)
    best = np.argsort(-expected_C)[:3]
    assert [each.category_id for each in answer.answers] == [base.categories[c] for c in best]
    found = [each.score for each in answer.answers]
    assert found == pytest.approx(expected_C[best].tolist(), abs=5e-3)  # stored as half floats
    raw_C = category_scores(heads.map("image", photo), centers)[0]
    assert np.abs(score_C - raw_C).min() > 5e-3

    names = load_controls(base)["class_name"]
    red_1D = names.vectors_ND[names.category_N == base.index["red-cup"]]
    gallery_ND = project.vectors("image", space="aligned").vectors_ND
    for modality, placed in ((None, heads.place_text(red_1D)), ("text", heads.map("text", red_1D))):
        hits = project.retrieve("red cup", into="image", k=3, modality=modality)  # type: ignore[arg-type]
        expected = np.sort((placed @ gallery_ND.T)[0])[::-1][:3]
        assert [hit.score for hit in hits] == pytest.approx(expected.tolist(), abs=5e-3)


def test_what_is_loaded_stays_until_its_files_change(cups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call loads nothing; after another run it is all loaded again."""
    project = Project.open(cups)
    photo = cups.parent / "media" / "green-cup-7.png"
    opened: list[str] = []
    honest = pipeline.api.open_recogniser  # type: ignore[attr-defined]

    def counting(*given: object) -> object:
        opened.append("recogniser")
        return honest(*given)

    monkeypatch.setattr("pipeline.api.open_recogniser", counting)
    warm = Project.open(cups)
    first = warm.predict(photo)
    assert list(warm.predict(photo)) == list(first)
    assert opened == ["recogniser"]
    hits = list(warm.retrieve("a red cup", k=60))
    shutil.copy(cups.parent / "media" / "blue-ball-0.png", cups.parent / "media" / "red-cup-0.png")
    project.run()
    again = warm.predict(photo)
    assert opened == ["recogniser", "recogniser"]
    assert list(again) == list(predict_files(project.file, [(photo, None)]))
    assert list(warm.retrieve("a red cup", k=60)) == retrieve_samples(project.file, "a red cup", top=60)
    assert list(warm.retrieve("a red cup", k=60)) != hits


def test_vectors_are_unit_rows_with_their_names(project: Project) -> None:
    """Of a modality's samples in each space, and of texts; aligned ones are what the head makes of them."""
    ids, x_ND = project.vectors("image")
    assert x_ND.shape == (48, 96) and x_ND.dtype == np.float32
    assert ids == sorted(ids) and ids[0] == "blue-ball-0"
    np.testing.assert_allclose(np.linalg.norm(x_ND, axis=1), 1, atol=1e-3)
    aligned = project.vectors("image", space="aligned")
    assert aligned.ids == ids and not np.allclose(aligned.vectors_ND, x_ND)
    words = project.vectors("category_texts", space="aligned")
    heads = load_heads(project.file.run)
    np.testing.assert_array_equal(
        words.vectors_ND, heads.place_text(project.vectors("category_texts").vectors_ND)
    )
    of_text, notes = project.vectors("text", space="aligned"), project.vectors("text")
    np.testing.assert_array_equal(of_text.vectors_ND, heads.map("text", notes.vectors_ND))
    texts = project.vectors("category_texts")
    assert set(texts.groups) >= {"red-cup", "blue-ball"} and len(texts) == 24
    assert len(project.vectors("controls")) > 6
    assert set(project.vectors("text").groups) == {"text"}
    assert repr(texts).startswith("float32[24, 96] by words\nid ")
    assert texts.table.arrow().schema.field("vector").type == pa.list_(pa.float32(), 96)
    with pytest.raises(InputError, match="no vectors 'images'; there are those of image, text"):
        project.vectors("images")
    with pytest.raises(InputError, match="no space 'raw'; there are samples, zero_shot, aligned"):
        project.vectors("image", space="raw")  # type: ignore[arg-type]
    with pytest.raises(KnowledgeBaseError, match="has encoded no audio sample"):
        project.vectors("audio")
    with pytest.raises(KnowledgeBaseError, match="no zero_shot encoder"):
        project.vectors("image", space="zero_shot")


def test_metrics_and_centers_are_those_of_the_run(project: Project) -> None:
    """The metrics are a dict that shows the result table; centers come with their texts."""
    path = project.file.run / "metrics.json"
    assert dict(project.metrics) == json.loads(path.read_text(encoding="utf-8"))
    assert "seen categories" in repr(project.metrics)
    assert project.metrics._repr_html_().startswith("<pre>")
    centers = project.centers.rows()
    assert len(centers) == 18 and {row["rank"] for row in centers} == {0, 1, 2}
    assert all(row["category"] in row["text"] for row in centers)


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    """Errors are the project's own, and say which stage is missing."""
    from tests.planted import plant_project

    with pytest.raises(ProjectError, match="no such project file"):
        Project.open(tmp_path / "unibind.toml")
    project = Project.open(plant_project(tmp_path / "fresh"))
    with pytest.raises(KnowledgeBaseError, match="`evaluate`"):
        _ = project.metrics
    with pytest.raises(KnowledgeBaseError, match="`localize`"):
        _ = project.centers
    for call in (project.kb.sql, project.predict, project.retrieve, project.vectors):
        with pytest.raises(KnowledgeBaseError):
            call("text")  # type: ignore[operator]
