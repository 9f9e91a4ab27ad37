"""A whole run and a study in one process, every stage that spreads in many small orders.

    python everything.py PROJECT

All stages have one engine, so that a test waits once for its workers. `files` are what must not depend on it.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from data.files import hash_file, hash_json
from kb_builder.describe import measuring
from kb_builder.tables import hashing
from kb_builder.tables.schemas import read_rows
from pipeline.engines import choose
from pipeline.project import load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.study import run as studies
from pipeline.study.file import load_study
from tests.planted import register_encoder

AT_A_TIME = 7  # samples of an order
STUDY = """
name = "two"
project = "unibind.toml"
seeds = [3, 4]
[ablations.centers]
question = "How many?"
[ablations.centers.variants]
"three" = {}
"one" = { localize.k = 1 }
"""
SMALLER = {
    "epochs = 40": "epochs = 2",
    "few_shot = []": "few_shot = [1, 2]",
    "baselines = false": "baselines = true",
    "stacking_folds = 0": "stacking_folds = 2",
    "repeats = 0": "repeats = 2",
    "[encode]": "[encode]\ntexts_per_part = 4\nsamples_per_part = 5",
}


def prepare(project: Path) -> None:
    """Make every stage of tests/planted.py's project small, and every one that spreads do something."""
    text = project.read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    project.write_text(text, encoding="utf-8")
    project.with_name("two.toml").write_text(STUDY, encoding="utf-8")


def run_everything(path: Path) -> None:
    """Run all stages and the study."""
    hashing.AT_A_TIME = measuring.AT_A_TIME = AT_A_TIME
    register_encoder()
    project = load_project(path)
    with choose.engine_of(project.running) as engine:
        choose.engine_of = studies.engine_of = lambda settings: nullcontext(engine)  # type: ignore[assignment]
        run_stages(project, plan(project))
        studies.run_study(load_study(path.with_name("two.toml")))


def files(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of a run, but for the ledger and what holds times.

    Of descriptions it is that of their rows without when they were written and how long that took.
    """
    run = load_project(path).run
    times = {"metrics.json", "report.html", "train_log.parquet", "run.lock", "unibind-checksums.json"}
    found = {file.relative_to(run).as_posix(): file for file in run.rglob("*") if file.is_file()}
    return {
        name: _hash_of_rows(file) if name.startswith("kb/descriptions/") else hash_file(file)
        for name, file in found.items()
        if not name.startswith(("kb/ledger.", "stages/"))
        and name != "kb/descriptions/manifest.json"
        and file.name not in times
    }


def _hash_of_rows(file: Path) -> str:
    return hash_json([{**row, "created_at": None, "latency_ms": None} for row in read_rows(file)])


if __name__ == "__main__":
    run_everything(Path(sys.argv[1]))
