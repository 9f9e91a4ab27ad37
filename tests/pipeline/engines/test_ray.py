"""Runs and studies on a Ray cluster of two nodes on loopback: the bytes of one process, whatever is killed.

One cluster serves all tests, in their order: a second node joins, is killed, and last the head is.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.engines.cluster import HEAD, OTHER, ROOT, Cluster, new_cluster
from tests.pipeline.engines.driven import (
    ENCODE,
    PATHS,
    copy_of,
    encoding,
    finished,
    parts,
    script,
    wait_for_parts,
)
from tests.pipeline.engines.everything import files, prepare
from tests.planted import copy_rates, plant_project, time_parts, vector_files

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install '.[ray]'")

EVERYTHING = Path(__file__).with_name("everything.py")
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
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which nothing has run; not to be changed."""
    project = plant_project(tmp_path_factory.mktemp("planted") / "project")
    prepare(project)
    return project


@pytest.fixture(scope="module")
def started_here(
    planted: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A whole run and a study by one process: the project, and the process."""
    here = Path(shutil.copytree(planted.parent, tmp_path_factory.mktemp("here") / "project")) / planted.name
    command = [sys.executable, str(EVERYTHING), str(here)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": PATHS}) as process:
        yield here, process


@pytest.fixture(scope="module")
def cluster(started_here: object) -> Iterator[Cluster]:
    """A head with two CPUs, started while the run by one process is at work; tests add another node."""
    found = new_cluster(python_path=PATHS)
    try:
        found.start(HEAD, cpus=2)
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def everything_here(started_here: tuple[Path, subprocess.Popen[bytes]]) -> dict[str, str]:
    """The files of a whole run and a study by one process."""
    here, process = started_here
    assert process.wait() == 0
    return files(here)


def everything_there(planted: Path, folder: Path, cluster: Cluster, *, cpus: int) -> dict[str, str]:
    """The same by workers of so many CPUs."""
    project = copy_of(planted, folder, cluster, cpus=cpus)
    command = [sys.executable, str(EVERYTHING), str(project)]
    finished(
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    return files(project)


def test_one_worker_on_one_node(
    cluster: Cluster, planted: Path, tmp_path: Path, everything_here: dict[str, str]
) -> None:
    """A run and a study: the same bytes; and a process without the token is not let in, with the reason."""
    bare = {name: value for name, value in cluster.environment.items() if not name.startswith("RAY_AUTH")}
    refused = script(WITHOUT_TOKEN, cluster, bare)
    assert everything_there(planted, tmp_path / "one", cluster, cpus=2) == everything_here
    kinds = {name.split("/")[0] for name in everything_here}
    assert {"kb", "studies", "evaluation.json", "heads.safetensors", "named.parquet"} <= kinds
    assert "does the cluster ask for a token? Then set RAY_AUTH_MODE=token" in finished(refused, status=1)


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_on_two_nodes(
    cluster: Cluster, planted: Path, tmp_path: Path, everything_here: dict[str, str], workers: int
) -> None:
    """A run and a study: the same bytes."""
    if OTHER not in cluster.nodes:
        cluster.start(OTHER, cpus=2)
    assert everything_there(planted, tmp_path / "some", cluster, cpus=4 // workers) == everything_here


def test_parts_by_seconds(cluster: Cluster, described: Path, tmp_path: Path) -> None:
    """Workers measure how long contents take; one process with these rates has the same bytes."""
    there = time_parts(copy_of(described, tmp_path / "there", cluster, cpus=1))
    assert "measured now: texts;" in finished(encoding(there, cluster))
    here = time_parts(Path(shutil.copytree(described.parent, tmp_path / "here")) / described.name)
    assert "rate-texts.json" in copy_rates(there, here)
    assert "measured now" not in finished(encoding(here, cluster))
    assert vector_files(here) == vector_files(there)


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
    assert started.returncode == 1 and "run the same command again" in said, said
    left = len(parts(project))
    assert left >= 3
    plain = project.read_text(encoding="utf-8").replace('engine = "ray"', 'engine = "local"')
    project.write_text(plain, encoding="utf-8")
    said = finished(encoding(project, cluster))
    assert vector_files(project) == by_one_process
    counts = dict(re.findall(r"texts (\w+) (\d+)", said))
    assert int(counts["encoded"]) + left <= int(counts["distinct"]), said
