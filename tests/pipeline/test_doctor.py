"""`unibind doctor` says what is there, what is not, and which endpoint answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kb_builder.publish.place import FolderPlace
from kb_builder.publish.writer import hold
from pipeline.check import Check
from pipeline.doctor import examine
from pipeline.project import ProjectFile, load_project


class Models(BaseHTTPRequestHandler):
    """An endpoint that lists its models to whoever has the right key."""

    listed: ClassVar[Any] = {"object": "list", "data": [{"id": "m"}, {"id": "mistral-7b"}]}

    def do_GET(self) -> None:
        right = self.headers["Authorization"] == "Bearer right"
        self.send_response(200 if right and self.path.partition("?")[0] == "/v1/models" else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.listed).encode())

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


def project(folder: Path, base_url: str) -> ProjectFile:
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
    assert all(key not in each.to_text() for each in checks if each.what in {"endpoint", "API key"})


def test_a_missing_manifest_and_a_dead_endpoint_are_failures(tmp_path: Path) -> None:
    """What the run would stumble over is marked FAIL."""
    checks = examine(project(tmp_path, "http://127.0.0.1:9/v1"))
    assert found(checks, "manifest").to_text().startswith("FAIL")
    assert found(checks, "endpoint").to_text().startswith("FAIL")


def changed(project: ProjectFile, *, samples: dict[str, Any] | None = None, **categories: Any) -> ProjectFile:
    """The project with other settings, not checked again."""
    describe = project.describe
    sections = {
        "categories": replace(describe.categories, **categories),
        "samples": replace(describe.samples, **(samples or {})),
    }
    return project.model_copy(update={"describe": describe.model_copy(update=sections)})


@pytest.fixture
def right_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_KEY", "right")


@pytest.mark.usefixtures("right_key")
def test_a_slash_at_the_end_of_the_address_does_no_harm(tmp_path: Path, endpoint: str) -> None:
    """`…/v1/` is asked as the client would ask it."""
    check = found(examine(project(tmp_path, f"{endpoint}/")), "endpoint")
    assert check.ok
    assert check.detail == f"{endpoint}/models answers (200)"


@pytest.mark.usefixtures("right_key")
@pytest.mark.parametrize(
    ("model", "listed", "ok", "words"),
    [
        ("m", Models.listed, True, "the endpoint lists 'm'"),
        (
            "mistral-8b",
            Models.listed,
            False,
            "not among the 2 models that the endpoint lists",
        ),
        ("m", [{"id": "m"}], True, "lists 'm'"),
        ("m", {}, False, "lists no models"),
        ("m", {"data": None}, False, "lists no models"),
        ("m", {"data": [None, {"id": 7}]}, False, "lists no models"),
        ("m", "words", False, "lists no models"),
    ],
)
def test_the_model_is_looked_up_in_the_list(
    tmp_path: Path,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    listed: Any,
    ok: bool,
    words: str,
) -> None:
    """One that is not there is a warning with what is, and no failure: some servers list nothing useful."""
    monkeypatch.setattr(Models, "listed", listed)
    checks = examine(changed(project(tmp_path, endpoint), model=model))
    check = found(checks, "model")
    assert check.ok is ok
    assert words in check.detail
    assert not check.to_text().startswith("FAIL")
    assert found(checks, "endpoint").ok


@pytest.mark.usefixtures("right_key")
def test_a_model_must_be_named(tmp_path: Path, endpoint: str) -> None:
    """Without one the run would stop: that is a failure."""
    checks = examine(changed(project(tmp_path, endpoint), model=None))
    assert found(checks, "model").to_text().startswith("FAIL")


@pytest.mark.usefixtures("right_key")
@pytest.mark.parametrize("samples", [{"describer": "openai"}, {"describer": "facts+llm", "llm": "openai"}])
def test_the_endpoint_of_the_samples_is_asked_too(
    tmp_path: Path, endpoint: str, samples: dict[str, Any]
) -> None:
    """Where it is another one, or the categories ask none; what is the same is asked once."""
    told = project(tmp_path, endpoint)
    categories = told.describe.categories
    whom = {name: getattr(categories, name) for name in ("model", "base_url", "api_key_env")}
    checks = examine(changed(told, samples=samples | whom))
    assert not [check for check in checks if "[describe.samples]" in check.what]
    dead = whom | {"base_url": "http://127.0.0.1:9/v1"}
    checks = examine(changed(told, samples=samples | dead))
    assert found(checks, "endpoint").ok
    assert found(checks, "endpoint of [describe.samples]").to_text().startswith("FAIL")
    checks = examine(changed(told, samples=samples | whom, describer="local"))
    assert found(checks, "describer").ok
    assert found(checks, "endpoint of [describe.samples]").ok
    assert found(checks, "model of [describe.samples]").ok
    checks = examine(changed(told, samples={"describer": "facts+llm"} | dead))
    assert not [check for check in checks if "[describe.samples]" in check.what]


@pytest.mark.usefixtures("right_key")
def test_no_secret_of_an_address_is_shown(tmp_path: Path, endpoint: str) -> None:
    """Neither password nor query is printed, whether the address is good, dead or none."""
    told = project(tmp_path, endpoint)
    host = endpoint.removeprefix("http://")
    for address in (
        f"{endpoint}?key=planted",
        f"http://planted:planted@{host}",
        "http://planted:planted@127.0.0.1:9/v1?planted",
        "http://host:planted/v1",
        "http://[planted/v1",
        "planted:planted@host",
        "file:///planted",
    ):
        checks = [check for check in examine(changed(told, base_url=address)) if check.what == "endpoint"]
        assert len(checks) == 1
        assert checks[0].ok is address.endswith("?key=planted")
        assert "planted" not in checks[0].detail, address


@pytest.mark.parametrize("pasted", ["sk-planted-0123", "$PLANTED", "1planted", ""])
def test_a_key_in_place_of_its_variables_name(tmp_path: Path, endpoint: str, pasted: str) -> None:
    """It is told what belongs there, and what stands there is not shown."""
    checks = examine(changed(project(tmp_path, endpoint), api_key_env=pasted))
    check = found(checks, "API key")
    assert check.to_text().startswith("FAIL")
    assert "NAME of a variable" in check.detail
    assert not pasted or all(pasted not in each.to_text() for each in checks)


@pytest.mark.parametrize(("key", "ok"), [(" right\n", True), ("ri\nght", False), ("right\u2019", False)])
def test_a_key_that_cannot_be_sent(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, key: str, ok: bool
) -> None:
    """Blanks around a key do no harm; a line break in it is told, and no error repeats it."""
    monkeypatch.setenv("DOCTOR_KEY", key)
    checks = examine(project(tmp_path, endpoint))
    assert found(checks, "API key").ok is ok
    assert all("ght" not in check.to_text() for check in checks if check.what in {"endpoint", "API key"})


def test_the_place_to_publish_to(tmp_path: Path) -> None:
    """What is there and who writes; one that cannot be used is a failure."""
    path = tmp_path / "unibind.toml"
    path.write_text('name = "x"\n[data]\nmanifest = "m.csv"\n[run]\npublish = "place"\n', encoding="utf-8")
    there = found(examine(load_project(path)), "publish")
    assert (there.ok, there.detail) == (True, f"{tmp_path / 'place'}: no version yet")
    with hold(FolderPlace(tmp_path / "place"), tmp_path / "elsewhere"):
        there = found(examine(load_project(path)), "publish")
    assert there.detail.startswith(f"{tmp_path / 'place'}: no version yet; process ")
    assert f"({tmp_path / 'elsewhere'}) was writing at 20" in there.detail
    path.write_text(path.read_text(encoding="utf-8").replace('"place"', '"unibind.toml"'), encoding="utf-8")
    assert not found(examine(load_project(path)), "publish").ok
