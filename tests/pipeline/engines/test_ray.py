"""Encoding on a Ray cluster of two nodes on loopback: the bytes of one process, whatever is killed.

One cluster serves all tests, in their order: a second node joins, is killed, and last the head is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.engines.cluster import HEAD, OTHER, ROOT, Cluster, new_cluster
from tests.planted import EXAMPLES, vector_files

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install '.[ray]'")

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (ROOT, EXAMPLES, HERE)))
ENCODE = """
import sys
from kb_builder.encoders import FACTORIES
from pipeline.cli.main import main
FACTORIES["words"] = sys.argv.pop(1)
main()
"""
TROUBLE = """
import sys
from data.errors import UniBindError
from pipeline.engines.choose import engine_of
from pipeline.project import RunSection
from slow_words import Order, Trouble
fine = "is fine"
with engine_of(RunSection(engine="ray", address=sys.argv[1])) as engine:
    for names in ([fine] * 6, [fine, "is wrong", fine], [fine, "kills its worker", fine]):
        got = []
        try:
            for result in engine.map(Trouble(), [Order(name, n) for n, name in enumerate(names)]):
                got.append(result)
        except UniBindError as error:
            print(sorted(got), type(error).__name__, error, flush=True)
        else:
            print(sorted(got), flush=True)
"""
WITHOUT_TOKEN = """
import sys
from pipeline.engines.ray import RayEngine
from pipeline.project import RunSection
RayEngine(RunSection(engine="ray", address=sys.argv[1])).connect()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with two CPUs; tests add another node."""
    found = new_cluster(python_path=PATHS)
    try:
        found.start(HEAD, cpus=2)
        yield found
    finally:
        found.stop()


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


def test_one_worker_on_one_node(
    cluster: Cluster, described: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """The same bytes; and a process without the token is not let in, with the likely reason."""
    bare = {name: value for name, value in cluster.environment.items() if not name.startswith("RAY_AUTH")}
    refused = script(WITHOUT_TOKEN, cluster, bare)
    project = copy_of(described, tmp_path / "one", cluster, cpus=2)
    finished(encoding(project, cluster))
    assert vector_files(project) == by_one_process
    assert "does the cluster ask for a token? Then set RAY_AUTH_MODE=token" in finished(refused, status=1)


def test_two_workers_on_two_nodes(
    cluster: Cluster, described: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """The same bytes."""
    cluster.start(OTHER, cpus=2)
    project = copy_of(described, tmp_path / "two", cluster, cpus=2)
    finished(encoding(project, cluster))
    assert vector_files(project) == by_one_process


def test_the_doctor_asks_every_node(cluster: Cluster, described: Path, tmp_path: Path) -> None:
    """Both see the run's folder, have this code and the encoder, and are of one class; no file is left."""
    project = copy_of(described, tmp_path / "doctor", cluster, cpus=1)
    command = [sys.executable, "-c", ENCODE, "own_encoder:load_words", "doctor", "--engine"]
    run = subprocess.run(
        [*command, "--project", str(project)],
        cwd=ROOT,
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    for host in (HEAD, OTHER):
        assert f"ok    node {host} " in run.stdout, run.stdout
    assert f"ok    engine: Ray at {cluster.address}, 2 nodes" in run.stdout
    assert "ok    hardware: one class: " in run.stdout
    assert not list((project.parent / "runs" / "cups").glob(".probe*"))


def test_four_workers_of_which_one_is_killed(
    cluster: Cluster, described: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """The same bytes; one part at most is tried again."""
    project = copy_of(described, tmp_path / "four", cluster, cpus=1)
    started = encoding(project, cluster, slowly=True)
    wait_for_parts(project, 3, started)
    os.kill((cluster.workers(HEAD) + cluster.workers(OTHER))[0], signal.SIGKILL)
    said = finished(started)
    assert vector_files(project) == by_one_process
    assert said.count("is tried again") <= 1, said


def test_orders_that_are_wrong_or_kill_their_worker(cluster: Cluster) -> None:
    """An error ends it with its words; an order that kills three workers is left out, and all others done."""
    lines = finished(script(TROUBLE, cluster)).splitlines()
    told = [line for line in lines if line.startswith("[")]
    assert told[0] == "[0, 2, 4, 6, 8, 10]"
    assert "InputError the picture is a cake (on " in told[1]
    assert told[2].startswith(
        "[0, 4] EngineError 1 left out, since it failed 3 times on its workers: kills its"
    )


def test_a_node_is_killed(
    cluster: Cluster, described: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """The same bytes, made by the node that is left; no more is tried again than the dead one had slots."""
    project = copy_of(described, tmp_path / "node", cluster, cpus=1)
    started = encoding(project, cluster, slowly=True)
    wait_for_parts(project, 3, started)
    cluster.kill(OTHER)
    said = finished(started)
    assert vector_files(project) == by_one_process
    assert said.count("is tried again") <= 2, said


def test_the_head_is_killed(
    cluster: Cluster, described: Path, tmp_path: Path, by_one_process: dict[str, str]
) -> None:
    """The run ends with the reason; the next one, without a cluster, ends with the same bytes."""
    project = copy_of(described, tmp_path / "head", cluster, cpus=1)
    started = encoding(project, cluster, slowly=True)
    wait_for_parts(project, 3, started)
    cluster.kill(HEAD)
    said = started.communicate(timeout=90)[0]
    assert started.returncode == 1 and "has not answered for 15 s" in said, said
    left = len(parts(project))
    assert left >= 3
    plain = project.read_text(encoding="utf-8").replace('engine = "ray"', 'engine = "local"')
    project.write_text(plain, encoding="utf-8")
    said = finished(encoding(project, cluster))
    assert vector_files(project) == by_one_process
    counts = dict(re.findall(r"texts (\w+) (\d+)", said))
    assert int(counts["encoded"]) + left <= int(counts["distinct"]), said
