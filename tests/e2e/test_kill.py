"""Killed at any moment, the main job goes on and ends with the same tables, asking nothing twice.

Its world is a quarter of the one that the other tests of this folder run on: six categories, all modalities.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import PROJECT

Unibind = Callable[..., subprocess.CompletedProcess[str]]
VOLATILE = ("created_at", "latency_ms")
CATEGORIES = 6, 2  # how many, and how many of them are not trained


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


@pytest.fixture(scope="module")
def few(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of some of the sample world's categories, not run yet."""
    folder = tmp_path_factory.mktemp("few") / "p"
    world = Path(shutil.copytree(small_world / "runs/small/world", folder / "world"))
    manifest, listed = pq.read_table(world / "manifest.parquet"), pc.read_csv(world / "categories.csv")
    trained = {row["category_id"] for row in manifest.to_pylist() if row["split"] == "train"}
    names = sorted(manifest["category_id"].unique().to_pylist(), key=lambda name: (name in trained, name))
    total, unseen = CATEGORIES
    kept = {*names[:unseen], *names[unseen - total :]}
    assert len(kept & trained) == total - unseen
    for table, path in ((manifest, "manifest.parquet"), (listed, "categories.csv")):
        rows = table.filter([name in kept for name in table["category_id"].to_pylist()])
        (pq.write_table if path.endswith("parquet") else pc.write_csv)(rows, world / path)
    given = 'manifest = "world/manifest.parquet"\ncategories = "world/categories.csv"'
    text = PROJECT.replace('manifest = "tabletop"', given)
    (folder / "unibind.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory, unibind: Unibind) -> Path:
    """The same project run to its end."""
    folder = Path(shutil.copytree(few, tmp_path_factory.mktemp("undisturbed") / "p"))
    done = unibind(folder, "run")
    assert done.returncode == 0, done.stderr
    return folder


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
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()", "run"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip() == f"▸ {sign}":
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL
    done = unibind(folder, "run")
    assert done.returncode == 0, done.stderr
    assert tables(folder) == tables(undisturbed)
    assert asked(folder) == asked(undisturbed)
    heads = "runs/small/heads.safetensors"
    assert (folder / heads).read_bytes() == (undisturbed / heads).read_bytes()
