"""`make serve`: the server, the port, the deployments."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect.utilities.callables import parameter_schema

from data.errors import InputError
from flows.build_kb import build_kb
from flows.localize_centers import localize_centers
from flows.serve import deployments, prefect_version, server
from flows.train_alignment import train_alignment

if TYPE_CHECKING:
    from conftest import Served

ROOT = Path(__file__).parents[2]


class _SomethingElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"hello": "I am a web shop"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_shop() -> Iterator[str]:
    """An API address where something listens that is not Prefect."""
    with HTTPServer(("127.0.0.1", 0), _SomethingElse) as shop:
        thread = threading.Thread(target=shop.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{shop.server_port}/api"
        shop.shutdown()
        thread.join()


def test_the_deployments_are_those_of_prefect_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each deployment has the name of its flow, so that one word names both."""
    monkeypatch.chdir(ROOT)
    read = deployments(Path("prefect.yaml"))
    names = ["build-kb", "localize-centers", "train-alignment"]
    assert [(each.flow_name, each.name) for each in read] == [(name, name) for name in names]
    assert read[0].parameters == {"project": "demo.toml", "downstream": True}
    assert all("unibind" in each.tags for each in read)
    assert not read[0].schedules


def test_the_page_says_what_each_parameter_is() -> None:
    """Prefect takes it from the docstrings of the flows."""
    for flow in (build_kb, localize_centers, train_alignment):
        asked = parameter_schema(flow).properties
        assert "project" in asked
        assert all(each["description"] for each in asked.values())


def test_the_schedule_is_one_line_of_prefect_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its comment sign taken away, it is served; a wrong one is named."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    with_it = text.replace("# schedules:", "schedules:")
    assert with_it != text
    (tmp_path / "prefect.yaml").write_text(with_it, encoding="utf-8")
    scheduled = deployments(tmp_path / "prefect.yaml")[0].schedules
    assert scheduled is not None
    assert [getattr(each.schedule, "cron", None) for each in scheduled] == ["0 3 * * *"]
    hourly = with_it.replace('cron: "0 3 * * *", timezone: UTC', "interval: 3600")
    (tmp_path / "prefect.yaml").write_text(hourly, encoding="utf-8")
    scheduled = deployments(tmp_path / "prefect.yaml")[0].schedules
    assert scheduled is not None
    assert str(getattr(scheduled[0].schedule, "interval", None)) == "1:00:00"
    (tmp_path / "prefect.yaml").write_text(with_it.replace("0 3 * * *", "at three"), encoding="utf-8")
    with pytest.raises(InputError, match=r"the schedule .*at three.* cannot be used"):
        deployments(tmp_path / "prefect.yaml")


def test_elsewhere_than_in_the_root_it_says_where_to_go(tmp_path: Path) -> None:
    """Without prefect.yaml there is nothing to serve; the user is told where to stand."""
    with pytest.raises(InputError, match=r"prefect\.yaml: no such file; run this in the repository's root"):
        deployments(tmp_path / "prefect.yaml")


def test_a_port_taken_by_something_else_is_named(web_shop: str) -> None:
    """Something else on the port is no reason to fail obscurely later."""
    with (
        pytest.raises(InputError, match="in use by something that is not a Prefect server"),
        server(web_shop),
    ):
        pytest.fail("it served")


def test_a_port_that_does_not_speak_http_is_named() -> None:
    """Nor is a listener that never answers like a web server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(InputError, match="in use by something that is not a Prefect server"):
            prefect_version(f"http://127.0.0.1:{listener.getsockname()[1]}/api")
        thread.join()


def test_a_server_of_another_machine_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address elsewhere that does not answer is said to be silent; no server starts here in its stead."""
    monkeypatch.setattr("flows.serve.prefect_version", lambda url: None)
    url = "http://prefect.example:4200/api"
    with pytest.raises(InputError, match=f"no Prefect server answers at {url}"), server(url):
        pytest.fail("it served")


def test_a_mistake_is_one_line(web_shop: str) -> None:
    """The command itself ends with one line on stderr and the status 1."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.serve"],
        cwd=ROOT,
        env={"PREFECT_API_URL": web_shop, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {web_shop}: that port is in use")
    assert done.stderr.count("\n") == 1


def test_a_server_that_answers_is_used_and_left_running(served: Served) -> None:
    """A second `make serve` finds the first one's server and does not stop it."""
    with server(served.url):
        version = prefect_version(served.url)
    assert version is not None
    assert prefect_version(served.url) == version


def test_nothing_phones_home(served: Served) -> None:
    """Server, runner, flow and command line look up and connect to this machine alone."""
    assert "DO_NOT_TRACK" not in served.environment
    served.prefect("deployment", "run", "train-alignment", "-p", 'project="nowhere.toml"', "--watch")
    assert not served.elsewhere.exists()
    lookup = "import socket\ntry: socket.getaddrinfo('prefect.invalid', 443)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", lookup], env=served.environment, check=True)
    assert served.elsewhere.read_text() == "prefect.invalid\n"  # so it would have been seen
    served.elsewhere.unlink()
    connect = "import asyncio, uvloop\ntry: uvloop.run(asyncio.open_connection('prefect.invalid', 443))\n"
    connect += "except OSError: pass"
    subprocess.run([sys.executable, "-c", connect], env=served.environment, check=True)
    assert "prefect.invalid" in served.elsewhere.read_text()  # in uvloop too, which the server runs on
    served.elsewhere.unlink()


def test_the_command_line_finds_the_server_by_pyproject() -> None:
    """In the repository's root Prefect's own commands need no settings."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("prefect")), "config", "view"],
        cwd=ROOT,
        env={"PATH": "", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    for setting in (
        "PREFECT_API_URL='http://127.0.0.1:4200/api'",
        "PREFECT_HOME='.prefect'",
        "PREFECT_PLUGINS_ENABLED='True'",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE='100'",
    ):
        assert f"{setting} (from pyproject.toml)" in done.stdout
    # The plugin of this repository imports `flows`, which switches this off in any folder.
    assert "PREFECT_SERVER_ANALYTICS_ENABLED='false' (from env)" in done.stdout
