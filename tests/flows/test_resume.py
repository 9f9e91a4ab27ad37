"""A flow that is killed and retried, with the real stages behind it."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from data.files import hash_file

if TYPE_CHECKING:
    from conftest import Served

PROJECT = """
name = "small"
[data]
manifest = "manifest.csv"
[describe.categories]
describer = "fake"
n = 4
[describe.samples]
describer = "facts"
[train]
enabled = false
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A project of eight pictures in two categories; returns its project file."""
    rows = ["sample_id,uri,modality,category,split"]
    values = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    for number, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append(f"s{number},{number}.png,image,{'red' if number % 2 else 'blue'} noise,test")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "small.toml").write_text(PROJECT)
    return tmp_path / "small.toml"


@pytest.mark.slow
def test_a_killed_flow_goes_on_where_it_stood(served: Served, pictures: Path) -> None:
    """Killed in `encode` and retried by the real command line, it skips what was done and asks nothing."""
    run = pictures.parent / "runs" / "small"
    started = served.prefect("deployment", "run", "build-kb", "-p", f'project="{pictures}"')
    run_id = re.search(r"UUID: (\S+)", started.stdout)
    assert run_id, started.stdout
    _wait_for(run / "stages" / "describe-samples.json")
    _kill_flow(served)
    described = hash_file(run / "kb" / "descriptions" / "category" / "part-00000.parquet")
    asked = _requests(run)

    _retry(served, run_id[1])
    _wait_for(run / "stages" / "report.json")
    told = served.log.read_text().rsplit("Beginning flow run", 1)[1]
    for stage in ("ingest", "describe-categories", "describe-samples"):
        assert f"{stage}: skipped, nothing it depends on has changed" in told
    assert hash_file(run / "kb" / "descriptions" / "category" / "part-00000.parquet") == described
    assert _requests(run) == asked
    assert (run / "metrics.json").exists()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)


def _kill_flow(served: Served) -> None:
    """Kill the flow's process: the one child of the runner that is an engine."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(served.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    (flow,) = [line.split()[0] for line in listed.stdout.splitlines() if "prefect.engine" in line]
    os.kill(int(flow), signal.SIGKILL)


def _retry(served: Served, run_id: str) -> None:
    """Retry the run as soon as the runner has seen that it crashed."""
    for _ in range(60):
        if served.prefect("flow-run", "retry", run_id).returncode == 0:
            return
        time.sleep(1)
    pytest.fail(f"{run_id} could not be retried")


def _requests(run: Path) -> int:
    with closing(sqlite3.connect(f"file:{run / 'kb' / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
        return int(ledger.execute("SELECT count(*) FROM entries").fetchone()[0])
