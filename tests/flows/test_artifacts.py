"""The summary of a run and its artifacts (flows/summary.py, flows/artifacts.py)."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

import flows.artifacts
from data.errors import RunError
from flows.artifacts import picture
from flows.localize_centers import localize_centers
from flows.summary import MOST_REASONS, summarise, to_markdown
from flows.train_alignment import train_alignment
from kb_builder.tables.schemas import REJECTS, write_table
from pipeline.project import load_project
from pipeline.run.stage import StageResult

HOSTILE = "<img src=x onerror=alert(1)> | [x](http://evil.example)"


def test_a_finished_run_is_told_with_its_headline(finished_cups: Path) -> None:
    """What was made, asked and rejected, and the report's answer."""
    summary = summarise(load_project(finished_cups))
    page = to_markdown(summary, [StageResult("encode", 1.0, False, {"texts": 24})])
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert summary.headline is not None
    assert "<h1>cups</h1>" in shown
    assert "The right category is found for" in shown
    assert '<td>encode</td>\n<td style="text-align:right">1.0 s</td>\n<td>texts 24</td>' in shown
    assert "texts about a category, accepted" in shown
    assert "requests answered, by all runs" in shown
    assert {row["modality"] for row in summary.results} == {"image", "text"}
    assert "Not run yet" not in shown


def test_a_stale_report_is_not_told(cups: Path) -> None:
    """After a change of the settings the old headline is another run's."""
    cups.write_text(cups.read_text(encoding="utf-8").replace("bootstrap = 20", "bootstrap = 21"), "utf-8")
    summary = summarise(load_project(cups))
    assert summary.headline is None
    assert not summary.results
    assert "There is no current report" in to_markdown(summary, [])


def test_before_anything_has_run_it_says_so(project: str) -> None:
    """A run that failed in its first stage has a summary too."""
    page = to_markdown(summarise(load_project(Path(project))), [], ended=f"no such file: {HOSTILE}")
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert "<img" not in shown
    assert "<a " not in shown
    assert "ended early:</strong> no such file: &lt;img src=x" in shown
    assert "Not run yet: world, ingest" in shown


def test_rejected_rows_are_grouped_by_reason(cups: Path) -> None:
    """The most frequent first, hostile reasons escaped; of very many the rarest are counted only."""
    project = load_project(cups)
    many = [f"reason {number}" for number in range(MOST_REASONS + 5)]
    reasons = [HOSTILE, HOSTILE, *many]
    rows = [
        {"sample_id": f"s{number}", "stage": "ingest", "reason": reason}
        for number, reason in enumerate(reasons)
    ]
    (project.kb / "unibind-checksums.json").unlink()  # else the new table would be damage
    write_table(project.kb / "rejects" / "ingest.parquet", rows, REJECTS)
    summary = summarise(project)
    samples = [row for row in summary.rejected if row["what"] == "samples"]
    assert (samples[0]["by"], samples[0]["rows"]) == ("ingest", 2)
    assert samples[0]["reason"] == r"\<img src=x onerror=alert(1)\> \| \[x\](http:\//evil.example)"
    assert len(summary.rejected) == MOST_REASONS + 1
    assert summary.rejected[-1]["reason"].endswith("rarer reasons are left out")
    assert summary.rejections["samples"] == len(reasons)
    write_table(project.kb / "rejects" / "encode.parquet", [{**rows[0], "stage": "encode"}], REJECTS)
    assert summarise(project).rejections["samples"] == len(reasons)  # one sample, rejected twice


def test_the_picture_is_small_and_in_the_artifact_itself(tmp_path: Path) -> None:
    """A `data:` address, so that the page loads nothing from elsewhere."""
    noise = np.random.default_rng(0).integers(0, 255, (1000, 3000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "space.png")
    kind, _, content = picture(tmp_path / "space.png").partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert shown.size == (720, 240)


@pytest.mark.usefixtures("served")
def test_a_flow_run_has_artifacts_and_the_tag_of_its_project(finished_cups: Path) -> None:
    """Of every kind, and the subject of each in its key."""
    state = train_alignment(str(finished_cups), return_state=True)
    assert state.is_completed(), state.message
    made = _artifacts(state)
    kinds = {key: each.type for key, each in made.items()}
    assert kinds["summary-cups"] == "markdown"
    assert kinds["results-cups"] == "table"
    assert {"report-cups", "ui-cups"} <= kinds.keys()
    assert f"`{finished_cups.parent / 'runs/cups/report.html'}`" in made["report-cups"].description
    with get_client(sync_client=True) as client:
        assert "project:cups" in client.read_flow_run(state.state_details.flow_run_id).tags


@pytest.mark.usefixtures("served", "ran")
def test_a_failed_run_has_a_summary_with_its_error(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error stays the flow's own."""

    def refuse(project: Any, name: str) -> StageResult:
        raise RunError(f"refused: {HOSTILE}")

    monkeypatch.setattr("pipeline.run.runner.run_stage", refuse)
    state = localize_centers(project, return_state=True)
    assert state.is_failed()
    assert r"**This run ended early:** refused: \<img" in _artifacts(state)["summary-small"].data


@pytest.mark.usefixtures("served", "ran")
def test_a_summary_that_cannot_be_made_fails_no_run(
    project: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why there is none."""

    def fail(project: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(flows.artifacts, "summarise", fail)
    assert localize_centers(project, return_state=True).is_completed()
    assert "no artifacts: ZeroDivisionError: a bug" in caplog.text


def _artifacts(state: Any) -> dict[str, Any]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {str(each.key): each for each in client.read_artifacts(artifact_filter=wanted)}
