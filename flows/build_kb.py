"""Stage 1 as a flow: samples and categories in, descriptions and their embeddings out; then stage 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import State, flow

from data.errors import BudgetError
from flows.artifacts import reported
from flows.automations import over_budget
from flows.localize_centers import localize_centers
from flows.tasks import run_shard, run_stage
from flows.train_alignment import train_alignment
from pipeline.project import load_project
from pipeline.run import jobs
from pipeline.run.publishing import publishing
from pipeline.run.stage import StageResult


@flow(name="build-kb", flow_run_name="build-kb {project}", log_prints=True)
def build_kb(project: str = "demo.toml", downstream: bool = True) -> State[Any] | None:
    """Build the knowledge base of a project file; with `downstream`, localize and train on it as well.

    Args:
        project: The project file (TOML) on the machine of the worker, relative to the repository.
        downstream: Then choose the embedding centers, train, evaluate and report, as subflows.
    """
    try:
        with reported(project) as done, publishing(load_project(Path(project)), jobs.STAGE_NAMES) as sent:
            for name in jobs.STAGE_NAMES[: jobs.STAGE_NAMES.index("encode") + 1]:
                in_shards = jobs.find_stage(name).shards is not None
                done.append(describe(project, name) if in_shards else run_stage(project, name))
                sent()
            if downstream:
                localize_centers(project)
                train_alignment(project)
    except BudgetError as error:
        return over_budget(error)
    return None


def describe(project: str, name: str) -> StageResult:
    """Describe shard by shard, one task each; the stage task then only marks the stage as complete."""
    shards = jobs.shards(load_project(Path(project)), name)
    for shard in shards:
        run_shard(project, name, shard, len(shards))
    return run_stage(project, name)
