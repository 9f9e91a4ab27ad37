"""One real `make serve` for all flow tests, on a free loopback port, its processes' connections watched."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import pipeline.run.jobs
import pipeline.run.runner
from pipeline.run.stage import StageResult

ROOT = Path(__file__).parents[2]

# Python imports a `sitecustomize` at its start: this one notes every address that a process looks up or
# connects to and that is not this machine's.
WATCH = """
import os, socket

def note(address):
    host = address[0] if isinstance(address, tuple) else address
    if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{host}\\n")

connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

def watched_connect(self, address):
    if self.family != socket.AF_UNIX:
        note(address)
    return connect(self, address)

def watched_connect_ex(self, address):
    if self.family != socket.AF_UNIX:
        note(address)
    return connect_ex(self, address)

def watched_lookup(host, *args, **kwargs):
    note(host)
    return lookup(host, *args, **kwargs)

socket.socket.connect = watched_connect
socket.socket.connect_ex = watched_connect_ex
socket.getaddrinfo = watched_lookup

try:
    import uvloop  # uvicorn takes it where it is installed; it looks up and connects in C
except ImportError:
    pass
else:
    loop_connect, loop_sock, loop_lookup = (
        getattr(uvloop.Loop, name) for name in ("create_connection", "sock_connect", "getaddrinfo")
    )

    def watched_loop_connect(self, factory, host=None, *args, **kwargs):
        note(host)
        return loop_connect(self, factory, host, *args, **kwargs)

    def watched_loop_sock(self, sock, address):
        if sock.family != socket.AF_UNIX:
            note(address)
        return loop_sock(self, sock, address)

    def watched_loop_lookup(self, host, *args, **kwargs):
        note(host)
        return loop_lookup(self, host, *args, **kwargs)

    uvloop.Loop.create_connection = watched_loop_connect
    uvloop.Loop.sock_connect = watched_loop_sock
    uvloop.Loop.getaddrinfo = watched_loop_lookup
"""


def free_port() -> int:
    """A loopback port that nothing listens on, below those that the system gives to connections."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are taken")


@dataclass(frozen=True)
class Served:
    """A running `python -m flows.serve`."""

    url: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path
    elsewhere: Path  # what its processes looked up or connected to that is not this machine

    def prefect(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the real Prefect command line in the repository's root."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("prefect")), *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`make serve` on a free port and with a home of its own; stopped by Ctrl-C, server and all."""
    with serving(tmp_path_factory.mktemp("served")) as process:
        yield process


@pytest.fixture
def served_alone(tmp_path: Path) -> Iterator[Served]:
    """A `make serve` for one test, which may kill parts of it."""
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as process:
        yield process


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The process, until the block ends; its server is stopped too where it was killed and left it."""
    (folder / "sitecustomize.py").write_text(WATCH)
    url = f"http://127.0.0.1:{free_port()}/api"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "PYTEST")) and name not in {"DO_NOT_TRACK", "CI"}
    }
    environment = {
        **kept,
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(folder / "home"),
        "PYTHONPATH": str(folder),
        "PYTHONUNBUFFERED": "1",
        "WATCH_LOG": str(folder / "elsewhere.log"),
        "COLUMNS": "200",
    }
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.serve"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: b"being served" in log.read_bytes(), process, log)
        with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: folder / "home"}):
            yield Served(url, environment, process, log, folder / "elsewhere.log")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(300)
        for left in _servers(url):
            os.kill(left, signal.SIGTERM)


def _servers(url: str) -> list[int]:
    """The processes of the Prefect server of that address."""
    port = url.removesuffix("/api").rpartition(":")[2]
    listed = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True, check=True)
    lines = listed.stdout.splitlines()
    return [
        int(line.split()[0])
        for line in lines
        if line.endswith(f"server start --host 127.0.0.1 --port {port}")
    ]


def wait_until(condition: Any, process: subprocess.Popen[bytes], log: Path, *, seconds: float = 300) -> None:
    """Wait until `condition()` holds; fail with the log's end when the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{log} ends with\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


@pytest.fixture
def project(tmp_path: Path) -> str:
    """The smallest project file there can be."""
    path = tmp_path / "small.toml"
    path.write_text('name = "small"\n[data]\nmanifest = "manifest.csv"\n')
    return str(path)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages and shards in the order in which the flows had them run, of a pipeline that only takes notes."""
    calls: list[str] = []

    def run_stage(project: Any, name: str) -> StageResult:
        calls.append(name)
        return StageResult(name, 1.0, False, {})

    def run_shard(project: Any, name: str, shard: int) -> dict[str, Any]:
        calls.append(f"{name} {shard}")
        return {"seconds": 1.0, "summary": {}}

    monkeypatch.setattr(pipeline.run.runner, "run_stage", run_stage)
    monkeypatch.setattr(pipeline.run.runner, "run_shard", run_shard)
    monkeypatch.setattr(pipeline.run.jobs, "shards", lambda project, name: [0, 1])
    return calls
