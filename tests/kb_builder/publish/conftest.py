"""Places to publish to: a folder, and a bucket of a real S3 server on loopback, moto of the extra `dev`."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from data.environment import environment

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
BUCKET = "birds"
_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_NEEDED = ("moto", "flask", "flask_cors", "boto3")


@contextmanager
def s3_server(**variables: str) -> Iterator[str]:
    """A server in a process of its own; its address. Without its packages the test is skipped."""
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"no S3 server to test with: {', '.join(lacking)} of the extra `dev` is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@contextmanager
def s3_environment(endpoint: str) -> Iterator[None]:
    """The variables of a user of this server, and no configuration of this machine's user."""
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    with environment(KEYS | nowhere | {"AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}):
        yield


class Cable:
    """A line to a server on loopback that can be cut and mended: `address` leads to it."""

    def __init__(self, address: str) -> None:
        self._server = urlsplit(address)
        self._open = True
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def cut(self) -> None:
        """End every connection, and each new one at once."""
        self._open = False
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._open = True

    def close(self) -> None:
        """End all of it."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join()

    def _start(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._open:
                    near.close()
                    continue
                assert self._server.hostname is not None
                far = socket.create_connection((self._server.hostname, self._server.port or 80))
                self._sockets += [near, far]
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. It fails after two minutes, with `what`."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server with the bucket `birds`, for all tests of the session."""
    with s3_server() as endpoint:
        import boto3

        with s3_environment(endpoint):
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def place_name(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty place, as a user gives it."""
    if request.param == "folder":
        yield str(tmp_path / "published")
        return
    endpoint = request.getfixturevalue("s3_endpoint")
    with s3_environment(endpoint):
        yield f"s3://{BUCKET}/{tmp_path.name}"
