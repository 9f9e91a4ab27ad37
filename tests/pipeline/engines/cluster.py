"""A Ray cluster on this machine's loopback, with a token; every process that it starts is known by its id."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
RAY = Path(sys.executable).with_name("ray")
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
SLOW_WORDS_LOG = "SLOW_WORDS_LOG"  # names the file that slow_words.py writes a line to for each batch


@dataclass
class Cluster:
    """Its nodes by address: the process `ray start --block`, whose descendants are the node's processes."""

    folder: Path
    port: int
    environment: dict[str, str]
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return f"{HEAD}:{self.port}"

    def start(self, host: str, *, cpus: int) -> None:
        """Start a node, the head first, and wait until it has joined."""
        own = ["--head", f"--port={self.port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        own += [f"--ray-client-server-port={free_port()}"]
        others = [f"--address={self.address}"]
        log = self.folder.with_name(f"{self.folder.name}-{host}.log")
        with log.open("wb") as out:
            self.nodes[host] = subprocess.Popen(
                [
                    *(sys.executable, str(RAY), "start", "--block", f"--node-ip-address={host}"),
                    *(f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=80000000"),
                    *(own if host == HEAD else others),
                ],
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until = time.monotonic() + 90
        while b"Ray runtime started" not in log.read_bytes():
            if self.nodes[host].poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the node {host} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.2)

    def workers(self, host: str) -> list[int]:
        """The processes of our workers on a node."""
        return [pid for pid in descendants(self.nodes[host].pid) if b"ray::_NodeWorker" in command(pid)]

    def kill(self, host: str) -> None:
        """Kill every process of a node at once, as a power cut does."""
        node = self.nodes.pop(host)
        for pid in [node.pid, *descendants(node.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """Kill what is left, and remove the files."""
        for host in list(self.nodes):
            self.kill(host)
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def new_cluster(*, python_path: str) -> Cluster:
    """A cluster without nodes yet."""
    # Not below pytest's folders: the name of a Unix socket may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="ubray"))
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = known | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": python_path,
        "PYTHONWARNINGS": "ignore",
    }
    return Cluster(folder / "ray", free_port(), environment)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    return list(_below(pid, parents))


def _below(pid: int, parents: dict[int, list[int]]) -> Iterator[int]:
    for child in parents.get(pid, []):
        yield child
        yield from _below(child, parents)


def command(pid: int) -> bytes:
    """A process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
