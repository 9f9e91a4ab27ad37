"""Localization as a flow: choose each category's embedding centers."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import reported
from flows.parameters import ProjectPath
from flows.tasks import run_stage


@flow(name="localize-centers", flow_run_name="localize-centers {project}", log_prints=True)
def localize_centers(project: ProjectPath = "demo.toml") -> None:
    """Choose the embedding centers of an existing knowledge base."""
    with reported(project) as done:
        done.append(run_stage(project, "localize"))
