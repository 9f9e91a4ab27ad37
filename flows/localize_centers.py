"""Localization as a flow: choose each category's embedding centers."""

from __future__ import annotations

from prefect import flow

from flows.artifacts import reported
from flows.tasks import run_stage


@flow(name="localize-centers", flow_run_name="localize-centers {project}", log_prints=True)
def localize_centers(project: str = "demo.toml") -> None:
    """Choose the embedding centers of an existing knowledge base.

    Args:
        project: The project file (TOML) on the machine of the worker, relative to the repository.
    """
    with reported(project) as done:
        done.append(run_stage(project, "localize"))
