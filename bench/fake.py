"""The fake server in a process of its own, and what it says of a run."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNIBIND = Path(sys.executable).with_name("unibind")


@contextmanager
def fake_server(*options: str) -> Iterator[str]:
    """`unibind fake-openai` with these options; gives its base URL."""
    with subprocess.Popen([UNIBIND, "fake-openai", *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().removeprefix("listening on ").strip()
        finally:
            server.terminate()


def reset(url: str) -> None:
    """Set the server's counters to zero."""
    _call(url, "/_fake/reset", method="POST")


def stats(url: str) -> dict[str, Any]:
    """The server's counters."""
    return dict(json.loads(_call(url, "/_fake/stats", method="GET")))


def seconds(told: dict[str, Any]) -> float:
    """From the arrival of the first request to the last answer: what no contender's start-up counts in."""
    return float(told["last_answer_s"] - told["first_request_s"])


def _call(url: str, path: str, *, method: str) -> bytes:
    request = urllib.request.Request(url.removesuffix("/v1") + path, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())
