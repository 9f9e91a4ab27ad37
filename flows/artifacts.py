"""What each flow run leaves on Prefect's pages: a summary, tables, links, a picture of the space, a tag.

Keys end with the project's name, so that Prefect keeps the history of each project's summary, results, ….
Prefect must never be why a run fails: if an artifact cannot be made, the log says so.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from prefect import tags
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.logging import get_run_logger

from flows.markdown import code, slug
from flows.stopping import end_if_suspended
from flows.summary import MOST_REASONS, RunSummary, summarise, to_markdown
from pipeline.html.elements import data_uri
from pipeline.project import ProjectFile, load_project
from pipeline.run.stage import StageResult
from pipeline.ui import PORT

_WIDTH = 720  # pixels of the picture, and its colours: the server keeps it in its database
_COLOURS = 64


@contextmanager
def reported(project: str) -> Iterator[list[StageResult]]:
    """Make the artifacts of this flow run when the block ends, well or by an error.

    The block appends what its stages did to the list. The run, its tasks and its subflows get the tag
    `project:NAME`. A run that is cancelled, suspended or killed leaves its progress only. Does nothing
    outside a flow run.
    """
    done: list[StageResult] = []
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield done
        return
    file = load_project(Path(project))
    tag = f"project:{file.name}"
    _tag(context.flow_run, tag)
    try:
        with tags(tag):
            yield done
    except CancelledRun:  # a stage was stopped; by a suspension?
        end_if_suspended()
        raise
    except Exception as error:
        _make(file, done, ended=str(error))
        raise
    _make(file, done)


def _tag(run: FlowRun, tag: str) -> None:
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, tags=sorted({*run.tags, tag}))
    except Exception as error:
        get_run_logger().warning("the run has no tag %s: %s: %s", tag, type(error).__name__, error)


def _make(project: ProjectFile, done: list[StageResult], *, ended: str | None = None) -> None:
    try:
        make_artifacts(summarise(project), done, ended=ended)
    except Exception as error:
        get_run_logger().warning("no artifacts: %s: %s", type(error).__name__, error)


def make_artifacts(summary: RunSummary, done: list[StageResult], *, ended: str | None = None) -> None:
    """Make the artifacts of a summary in the current flow run."""
    project, name = summary.project, slug(summary.project.name)
    create_markdown_artifact(
        to_markdown(summary, done, ended=ended),
        key=f"summary-{name}",
        description="What was made, spent and rejected, and the report's headline.",
    )
    if summary.results:
        create_table_artifact(
            list(summary.results),
            key=f"results-{name}",
            description="Top-1 accuracy in percent with its 95% interval, beside the best control.",
        )
    if summary.rejected:
        create_table_artifact(
            list(summary.rejected),
            key=f"rejected-{name}",
            description=f"Rejected texts and quarantined samples by reason (at most {MOST_REASONS} reasons).",
        )
    if summary.headline is None:
        return
    command = shlex.join(["unibind", "ui", "--project", str(project.path)])
    start = f"Works while this runs on the machine of your browser: {code(command)}"
    file = f"The file: {code(project.run / 'report.html')}"
    _link("The report", f"report-{name}", f"/report/{quote(project.name)}", f"{start}. {file}")
    _link("Search, samples, categories and the space", f"ui-{name}", "/", f"{start}.")
    if (project.run / "space.png").is_file():
        create_image_artifact(
            picture(project.run / "space.png"),
            key=f"space-{name}",
            description="Test samples in the plane, by modality and by category (t-SNE: neighbours only).",
        )


def _link(text: str, key: str, path: str, description: str) -> None:
    address = f"http://127.0.0.1:{PORT}{path}"
    create_link_artifact(address, link_text=text, key=key, description=description)


def picture(path: Path) -> str:
    """A picture as a `data:` address of some ten kilobytes: Prefect's page needs no other server for it."""
    with Image.open(path) as opened:
        drawn = opened.convert("RGB")
    drawn.thumbnail((_WIDTH, 4 * _WIDTH))
    file = io.BytesIO()
    drawn.quantize(_COLOURS).save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "image/png")
