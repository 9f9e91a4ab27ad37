"""Places to publish to: a folder, and a bucket of a real S3 server on loopback, moto of the extra `dev`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
