"""Stage 2 as a flow: align the heads to the centers, evaluate them, write the report."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.artifacts import reported
from flows.tasks import run_stage
from pipeline.project import load_project
from pipeline.run.jobs import plan


@flow(name="train-alignment", flow_run_name="train-alignment {project}", log_prints=True)
def train_alignment(project: str = "demo.toml") -> None:
    """Train on localized centers, evaluate and report; with training off, evaluate zero-shot.

    Args:
        project: The project file (TOML) on the machine of the worker, relative to the repository.
    """
    with reported(project) as done:
        if "train" in plan(load_project(Path(project))):
            done.append(run_stage(project, "train"))
        done.append(run_stage(project, "evaluate"))
        done.append(run_stage(project, "report"))
