"""Kills at three moments: of a worker, of a node, of the head and of the driver. Minutes, so marked slow.

Each time: no row is lost, at most as many parts are made again as there were slots (each part is one batch,
and a line of the log), and a run that cannot go on ends, and says why. `-s` shows how long each took from the
kill to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.engines.cluster import HEAD, OTHER, SLOW_WORDS_LOG, Cluster, new_cluster
from tests.pipeline.engines.driven import PATHS, copy_of, encoding, finished, parts, wait_for_parts
from tests.planted import vector_files

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install '.[ray]'")
pytestmark = pytest.mark.slow

SLOTS = 4
MOMENTS = ["as the first part is made", "in the middle", "at the end"]
LIMIT_S = 90  # until a run ends that cannot go on


class _Clusters:
    """The cluster of two nodes; what a test has killed is started again."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.cluster: Cluster | None = None

    def whole(self) -> Cluster:
        """A cluster with both nodes, and an empty log."""
        if self.cluster is not None and HEAD not in self.cluster.nodes:
            self.stop()
        if self.cluster is None:
            self.cluster = new_cluster(python_path=PATHS)
            self.cluster.environment[SLOW_WORDS_LOG] = str(self.log)
        for host in (HEAD, OTHER):
            if host not in self.cluster.nodes:
                self.cluster.start(host, cpus=SLOTS // 2)
        self.log.write_text("", encoding="utf-8")
        return self.cluster

    def stop(self) -> None:
        """End the cluster, if there is one."""
        if self.cluster is not None:
            self.cluster.stop()
            self.cluster = None


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Clusters]:
    """One cluster for all tests, mended between them."""
    found = _Clusters(tmp_path_factory.mktemp("log") / "batches")
    try:
        yield found
    finally:
        found.stop()


def at_work(project: Path, clusters: _Clusters, moment: str, whole: int) -> subprocess.Popen[str]:
    """A driver whose workers have come to this moment; `whole` is the number of all parts."""
    cluster = clusters.whole()
    started = encoding(project, cluster, slowly=True)
    wait_for_parts(project, {MOMENTS[1]: whole // 2, MOMENTS[2]: whole - 2}.get(moment, 0), started)
    until = time.monotonic() + 120
    while not clusters.log.read_text(encoding="utf-8"):  # the first batch is at work
        assert started.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    return started


def again(clusters: _Clusters, batches: int) -> int:
    """How many batches were encoded beyond the `batches` of an undisturbed run."""
    return len(clusters.log.read_text(encoding="utf-8").splitlines()) - batches


def tell(what: str, moment: str, killed: float) -> None:
    """Print how long a run took from a kill to its end."""
    print(f"{what}, {moment}: {time.monotonic() - killed:.1f} s from the kill to the end of the run")


@pytest.fixture(scope="module")
def batches(clusters: _Clusters, described: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many batches an undisturbed run encodes."""
    cluster = clusters.whole()
    project = copy_of(described, tmp_path_factory.mktemp("calm") / "project", cluster, cpus=1)
    finished(encoding(project, cluster, slowly=True))
    count = again(clusters, 0)
    assert count >= 8
    return count


@pytest.fixture(scope="module")
def whole(by_one_process: dict[str, str]) -> int:
    """The number of all parts."""
    return sum(name.startswith("embeddings/") and name.endswith(".parquet") for name in by_one_process)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", ["worker", "node"])
def test_the_run_goes_on(
    clusters: _Clusters,
    described: Path,
    tmp_path: Path,
    by_one_process: dict[str, str],
    batches: int,
    whole: int,
    what: str,
    moment: str,
) -> None:
    """A worker or a node is killed: the same bytes."""
    project = copy_of(described, tmp_path / "project", clusters.whole(), cpus=1)
    started = at_work(project, clusters, moment, whole)
    cluster = clusters.cluster
    assert cluster is not None
    killed = time.monotonic()
    if what == "worker":
        os.kill((cluster.workers(HEAD) + cluster.workers(OTHER))[0], signal.SIGKILL)
    else:
        cluster.kill(OTHER)
    finished(started)
    tell(what, moment, killed)
    assert vector_files(project) == by_one_process
    assert again(clusters, batches) <= (1 if what == "worker" else SLOTS // 2)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("what", ["head", "driver"])
def test_the_next_run_goes_on(
    clusters: _Clusters,
    described: Path,
    tmp_path: Path,
    by_one_process: dict[str, str],
    batches: int,
    whole: int,
    what: str,
    moment: str,
) -> None:
    """The head or the driver is killed: the run ends, and the same command completes it."""
    project = copy_of(described, tmp_path / "project", clusters.whole(), cpus=1)
    started = at_work(project, clusters, moment, whole)
    cluster = clusters.cluster
    assert cluster is not None
    killed = time.monotonic()
    if what == "driver":
        started.kill()
        said = started.communicate(timeout=LIMIT_S)[0]
        tell(what, moment, killed)
        assert "run the same command again" in said, said
    else:
        cluster.kill(HEAD)
        said = started.communicate(timeout=LIMIT_S)[0]
        tell(what, moment, killed)
        assert started.returncode in {0, 1}, said  # 0: all was made before the head was missed
        assert started.returncode == 0 or "run the same command again" in said, said
    before = clusters.log.read_text(encoding="utf-8")
    left = len(parts(project))
    cluster = clusters.whole()
    clusters.log.write_text(before, encoding="utf-8")
    text = project.read_text(encoding="utf-8")
    start = text.index('address = "')
    stop = text.index("\n", start)
    project.write_text(text[:start] + f'address = "{cluster.address}"' + text[stop:], encoding="utf-8")
    finished(encoding(project, cluster, slowly=True))
    assert left <= len(parts(project))
    assert vector_files(project) == by_one_process
    assert again(clusters, batches) <= SLOTS
