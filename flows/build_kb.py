"""Stage 1 as a flow: samples and categories in, descriptions and their embeddings out; then stage 2."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.localize_centers import localize_centers
from flows.tasks import run_shard, run_stage
from flows.train_alignment import train_alignment
from pipeline.project import load_project
from pipeline.run import jobs


@flow(name="build-kb", flow_run_name="build-kb {project}", log_prints=True)
def build_kb(project: str = "demo.toml", downstream: bool = True) -> None:
    """Build the knowledge base of a project file; with `downstream`, localize and train on it as well."""
    run_stage(project, "world")
    run_stage(project, "ingest")
    describe(project, "describe-categories")
    run_stage(project, "describe-contrasts")
    describe(project, "describe-samples")
    run_stage(project, "encode")
    if downstream:
        localize_centers(project)
        train_alignment(project)


def describe(project: str, name: str) -> None:
    """Describe shard by shard, one task each; the stage task then only marks the stage as complete."""
    for shard in jobs.shards(load_project(Path(project)), name):
        run_shard(project, name, shard)
    run_stage(project, name)
