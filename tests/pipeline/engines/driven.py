"""Commands as drivers of a test's cluster, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.pipeline.engines.cluster import ROOT, Cluster
from tests.planted import EXAMPLES

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (ROOT, EXAMPLES, HERE)))
ENCODE = """
import sys
from kb_builder.encoders import FACTORIES
from pipeline.cli.main import main
FACTORIES["words"] = sys.argv.pop(1)
main()
"""


def copy_of(described: Path, folder: Path, cluster: Cluster, *, cpus: int) -> Path:
    """The project file of a copy that is to be encoded on the cluster, by workers of so many CPUs."""
    path = Path(shutil.copytree(described.parent, folder)) / described.name
    run = f'\n[run]\nengine = "ray"\naddress = "{cluster.address}"\n\n[run.workers]\ncpus = {cpus}\n'
    path.write_text(path.read_text(encoding="utf-8") + run, encoding="utf-8")
    return path


def encoding(project: Path, cluster: Cluster, *, slowly: bool = False) -> subprocess.Popen[str]:
    """`unibind encode` in a process of its own."""
    words = "slow_words:load_words" if slowly else "own_encoder:load_words"
    command = [sys.executable, "-c", ENCODE, words, "encode", "--project", str(project)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(started: subprocess.Popen[str], *, status: int = 0) -> str:
    """What the process said, which must have ended with this status."""
    said = started.communicate(timeout=150)[0]
    assert started.returncode == status, said
    return said


def parts(project: Path) -> list[Path]:
    """The files of vectors that there are."""
    return list((project.parent / "runs/cups/kb/embeddings").glob("*/*/*.parquet"))


def wait_for_parts(project: Path, count: int, started: subprocess.Popen[str]) -> None:
    """Until so many files of vectors are there."""
    until = time.monotonic() + 120
    while len(parts(project)) < count:
        assert started.poll() is None and time.monotonic() < until, started.communicate()[0]
        time.sleep(0.05)


def script(text: str, cluster: Cluster, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A program that gets the cluster's address."""
    return subprocess.Popen(
        [sys.executable, "-c", text, cluster.address],
        cwd=ROOT,
        env=environment or cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
