"""The fake server in a separate process, and its counters."""

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


def seconds(counters: dict[str, Any]) -> float:
    """Seconds from the first request to the last answer, without any contender's start-up."""
    return float(counters["last_answer_s"] - counters["first_request_s"])


def _call(url: str, path: str, *, method: str) -> bytes:
    request = urllib.request.Request(url.removesuffix("/v1") + path, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())
