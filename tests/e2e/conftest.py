"""One small project, run to its end once for all tests of the main job; fake-openai for stage 1."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from tests.commands import forked

# The main job in small: some of the sample world's categories, and the deterministic describer.
PROJECT = """\
name = "small"
seed = 3

[data]
manifest = "world/manifest.parquet"
categories = "world/categories.csv"

[describe.categories]
describer = "fake"
n = 6

[localize]
k = 4

[train]
epochs = 20
"""
# Every kind of number, on few draws.
EVALUATE = """
[evaluate]
bootstrap = 200
few_shot = [1, 4]
stacking_folds = 2
repeats = 2
"""
# For tests that compare what was written before.
EVALUATE_LITTLE = """
[evaluate]
bootstrap = 20
few_shot = []
sweeps = false
probe = false
baselines = false
stacking_folds = 0
repeats = 0
"""


Unibind = Callable[..., subprocess.CompletedProcess[str]]
Served = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def planted_key(monkeypatch: pytest.MonkeyPatch) -> str:
    """An API key that must never be written down; every process that a test starts has it."""
    key = "sk-planted-7f3c9a1e5b2d4c68"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    return key


@pytest.fixture
def served(planted_key: str) -> Served:
    """fake-openai in a process of its own, which wants the planted key: `with served(*options) as url`."""

    @contextmanager
    def serve(*options: str) -> Iterator[str]:
        command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "fake-openai"]
        process = subprocess.Popen(
            [*command, "--api-key-env", "OPENAI_API_KEY", *options], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            yield line.split()[-1]
        finally:
            process.terminate()
            process.communicate(timeout=120)

    return serve


@pytest.fixture(scope="session")
def unibind() -> Unibind:
    """Run the command line in a folder, in a process forked for it: `unibind(folder, "predict", "a.png")`."""
    return forked


def plant(world: Path, folder: Path, *, trained: int, untrained: int, evaluate: str) -> Path:
    """Write a project of some categories of a sample world; returns its folder."""
    ours = Path(shutil.copytree(world, folder / "world"))
    manifest, listed = pq.read_table(ours / "manifest.parquet"), pc.read_csv(ours / "categories.csv")
    seen = {row["category_id"] for row in manifest.to_pylist() if row["split"] == "train"}
    kept = {*sorted(seen)[-trained:], *sorted({*listed["category_id"].to_pylist()} - seen)[-untrained:]}
    for table, path in ((manifest, "manifest.parquet"), (listed, "categories.csv")):
        rows = table.filter([name in kept for name in table["category_id"].to_pylist()])
        (pq.write_table if path.endswith("parquet") else pc.write_csv)(rows, ours / path)
    (folder / "unibind.toml").write_text(PROJECT + evaluate, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished(sample_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of eight categories, two not trained, run to its end by a process that a user would start."""
    place = tmp_path_factory.mktemp("finished") / "p"
    folder = plant(sample_world, place, trained=6, untrained=2, evaluate=EVALUATE)
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()", "run"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def few(sample_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of four categories, one of them not trained; not run yet."""
    place = tmp_path_factory.mktemp("few") / "p"
    return plant(sample_world, place, trained=3, untrained=1, evaluate=EVALUATE_LITTLE)


@pytest.fixture(scope="session")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory, unibind: Unibind) -> Path:
    """The same project run to its end."""
    folder = Path(shutil.copytree(few, tmp_path_factory.mktemp("undisturbed") / "p"))
    done = unibind(folder, "run")
    assert done.returncode == 0, done.stderr
    return folder
