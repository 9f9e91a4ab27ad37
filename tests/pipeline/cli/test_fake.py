"""`unibind fake-openai` as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.commands import in_process

UNIBIND = Path(sys.executable).parent / "unibind"


def post(url: str, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
    """Status and body of one answer."""
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def converse(server: subprocess.Popen[str]) -> str:
    """A wrong key, a right one, a wrong model; then stop it. Gives what it said at its end."""
    assert server.stdout is not None
    url = server.stdout.readline().removeprefix("listening on ").strip()
    chat = f"{url}/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": 'About "bell".'}]}
    assert post(chat, body, "sk-wrong")[0] == 401
    assert post(chat, body, "sk-rehearsal")[1]["error"]["code"] == "content_policy_violation"
    assert post(chat, body | {"model": "n"}, "sk-rehearsal")[0] == 404
    server.send_signal(signal.SIGTERM)
    said = server.stdout.read()
    server.wait()
    return said


def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """It says where it listens, does as its options say, and ends with a summary; the key is not shown."""
    command = [
        UNIBIND,
        "fake-openai",
        "--api-key-env",
        "REHEARSAL_KEY",
        "--model",
        "m",
        "--fault",
        "policy=1",
    ]
    with subprocess.Popen(
        [*command, "--log", tmp_path / "log"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"REHEARSAL_KEY": "sk-rehearsal"},
    ) as server:
        try:
            said = converse(server)
        finally:
            server.kill()
    assert server.returncode == 0
    assert "requests   3 (1 distinct)" in said and "content_policy_violation 1" in said
    assert "sk-rehearsal" not in said
    assert (tmp_path / "log").read_text(encoding="utf-8").endswith(" 400\n")


def test_mistakes_in_its_options_are_one_line(tmp_path: Path) -> None:
    """A wrong fault lists the right ones; a missing key, a torn share and a torn outage are told."""
    for options, words in (
        (["--fault", "sulk=1"], "known are: throttle"),
        (["--fault", "500"], "NAME=SHARE"),
        (["--outage", "5"], "FROM:TO"),
        (["--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
    ):
        done = in_process("fake-openai", *options, folder=tmp_path)
        assert done.status == 1
        assert done.err.startswith("error: ") and words in done.err and done.err.count("\n") == 1


def test_what_it_cannot_have_is_one_line_at_its_start(tmp_path: Path) -> None:
    """A port in use, and a log in a folder that is not there, are told at once, and nothing is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, words in (
            (["--port", port], f"port {port} of 127.0.0.1 cannot be used (Address already in use)"),
            (["--log", str(tmp_path / "nowhere" / "log")], "nowhere/log: cannot be written (No such file"),
        ):
            done = in_process("fake-openai", *options, folder=tmp_path)
            assert done.status == 1
            assert done.err.startswith("error: ") and words in done.err
            assert done.err.count("\n") == 1 and done.out == ""
