"""Localization as a flow: choose each category's embedding centers."""

from __future__ import annotations

from prefect import flow

from flows.tasks import run_stage


@flow(name="localize-centers", flow_run_name="localize-centers {project}", log_prints=True)
def localize_centers(project: str = "demo.toml") -> None:
    """Choose the embedding centers of an existing knowledge base."""
    run_stage(project, "localize")
