"""One small tabletop project, run to its end once for all tests of the main job; fake-openai for stage 1."""

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

from pipeline.project import load_project
from pipeline.run.runner import run_stage
from tests.commands import forked
from tests.once import once

# The main job in small: three objects per category instead of sixteen, and the deterministic describer.
PROJECT = """\
name = "small"
seed = 3

[data]
manifest = "tabletop"

[tabletop]
objects_per_category = 3
image_px = 96
video_px = 64

[describe.categories]
describer = "fake"
n = 6

[localize]
k = 4

[evaluate]
bootstrap = 200
few_shot = [1, 4]
repeats = 2
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


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project file and its sample world made: the start of every run below."""

    def make(folder: Path) -> None:
        (folder / "unibind.toml").write_text(PROJECT, encoding="utf-8")
        run_stage(load_project(folder / "unibind.toml"), "world")

    return once(tmp_path_factory, "e2e-world", make)


@pytest.fixture(scope="session")
def finished(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same project run to its end, undisturbed, by a process that a user would start."""
    folder = tmp_path_factory.mktemp("finished") / "p"
    shutil.copytree(small_world, folder)
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
def few(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of six of the sample world's 24 categories, two of them not trained; not run yet."""
    folder = tmp_path_factory.mktemp("few") / "p"
    world = Path(shutil.copytree(small_world / "runs/small/world", folder / "world"))
    manifest, listed = pq.read_table(world / "manifest.parquet"), pc.read_csv(world / "categories.csv")
    trained = {row["category_id"] for row in manifest.to_pylist() if row["split"] == "train"}
    names = sorted(manifest["category_id"].unique().to_pylist(), key=lambda name: (name in trained, name))
    kept = {*names[:2], *names[-4:]}
    assert len(kept & trained) == 4
    for table, path in ((manifest, "manifest.parquet"), (listed, "categories.csv")):
        rows = table.filter([name in kept for name in table["category_id"].to_pylist()])
        (pq.write_table if path.endswith("parquet") else pc.write_csv)(rows, world / path)
    given = 'manifest = "world/manifest.parquet"\ncategories = "world/categories.csv"'
    text = PROJECT.replace('manifest = "tabletop"', given)
    (folder / "unibind.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def undisturbed(few: Path, tmp_path_factory: pytest.TempPathFactory, unibind: Unibind) -> Path:
    """The same project run to its end."""
    folder = Path(shutil.copytree(few, tmp_path_factory.mktemp("undisturbed") / "p"))
    done = unibind(folder, "run")
    assert done.returncode == 0, done.stderr
    return folder
