"""Killed at any moment, the main job goes on and ends with the same tables, asking nothing twice.

Its world is half of the one that test_main_job.py runs on: four categories, all modalities.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.torture.ground import Running, start

Unibind = Callable[..., subprocess.CompletedProcess[str]]
VOLATILE = ("created_at", "latency_ms")


def tables(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of the knowledge base, ordered, without times and latencies."""
    kb = folder / "runs/small/kb"
    found: dict[str, list[tuple[Any, ...]]] = {}
    for path in sorted(kb.rglob("*.parquet")):
        relation = duckdb.sql(f"SELECT * FROM '{path}'")
        columns = ", ".join(f'"{name}"' for name in relation.columns if name not in VOLATILE)
        found[str(path.relative_to(kb))] = duckdb.sql(
            f"SELECT {columns} FROM '{path}' ORDER BY ALL"
        ).fetchall()
    return found


def asked(folder: Path) -> int:
    """How many requests the ledger holds an answer to."""
    with sqlite3.connect(folder / "runs/small/kb/ledger.sqlite") as ledger:
        return int(ledger.execute("SELECT count(*) FROM entries").fetchone()[0])


def wait_for_line(started: Running, line: str) -> None:
    """Wait until a command has printed a line on stderr."""
    printed = started.streams / "err"
    while not (printed.exists() and line in printed.read_text("utf-8", errors="replace").splitlines()):
        assert started.process.is_alive(), started.wait().err
        time.sleep(0.02)


@pytest.mark.parametrize(
    "sign",
    [
        "describe-categories",
        pytest.param("describe-samples", marks=pytest.mark.slow),
        "encode",
        pytest.param("localize", marks=pytest.mark.slow),
        pytest.param("train", marks=pytest.mark.slow),
        pytest.param("evaluate", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_a_stage_ends_as_an_undisturbed_one(
    undisturbed: Path, few: Path, tmp_path: Path, unibind: Unibind, sign: str
) -> None:
    """kill -9 as soon as the stage begins; the next run ends with the same tables and the same ledger."""
    folder = tmp_path / "p"
    shutil.copytree(few, folder)
    process = start(folder, "run", streams=tmp_path / "streams", environment=os.environ)
    wait_for_line(process, f"▸ {sign}")
    time.sleep(0.3)
    process.kill()
    assert process.wait().status == -signal.SIGKILL
    done = unibind(folder, "run")
    assert done.returncode == 0, done.stderr
    assert tables(folder) == tables(undisturbed)
    assert asked(folder) == asked(undisturbed)
    heads = "runs/small/heads.safetensors"
    assert (folder / heads).read_bytes() == (undisturbed / heads).read_bytes()
