"""`unibind doctor` says what is there, what is not, and which endpoint answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.doctor import Check, examine
from pipeline.project import Project, load_project


class Models(BaseHTTPRequestHandler):
    """An endpoint that lists its models to whoever has the right key."""

    def do_GET(self) -> None:
        right = self.headers["Authorization"] == "Bearer right"
        self.send_response(200 if right and self.path == "/v1/models" else 401)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Models)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def project(folder: Path, base_url: str) -> Project:
    path = folder / "unibind.toml"
    path.write_text(
        'name = "x"\n[data]\nmanifest = "m.csv"\n[describe.categories]\ndescriber = "openai"\nmodel = "m"\n'
        f'base_url = "{base_url}"\napi_key_env = "DOCTOR_KEY"\n',
        encoding="utf-8",
    )
    return load_project(path)


def found(checks: list[Check], what: str) -> Check:
    return next(check for check in checks if check.what == what)


def test_everything_that_make_setup_installs_is_found() -> None:
    """Packages and the four embedded models are there in the environment that runs the tests."""
    checks = examine(None)
    assert all(check.ok for check in checks if check.needed)
    assert found(checks, "LLM SmolLM2-135M").detail.endswith("MiB")


@pytest.mark.parametrize(("key", "ok"), [("right", True), ("wrong", False)])
def test_the_endpoint_is_asked_with_the_key_and_the_key_is_not_shown(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, key: str, ok: bool
) -> None:
    """A right key is accepted, a wrong one is told as 401; neither is printed."""
    monkeypatch.setenv("DOCTOR_KEY", key)
    checks = examine(project(tmp_path, endpoint))
    check = found(checks, "endpoint")
    assert check.ok is ok
    assert ("200" if ok else "401") in check.detail
    assert all(key not in each.told() for each in checks if each.what in {"endpoint", "API key"})


def test_a_missing_manifest_and_a_dead_endpoint_are_failures(tmp_path: Path) -> None:
    """What the run would stumble over is marked FAIL."""
    checks = examine(project(tmp_path, "http://127.0.0.1:9/v1"))
    assert found(checks, "manifest").told().startswith("FAIL")
    assert found(checks, "endpoint").told().startswith("FAIL")
