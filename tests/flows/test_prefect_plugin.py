"""The short name in `prefect deployment run build-kb`."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import PrefectClient

from flows.prefect_plugin import setup_environment

if TYPE_CHECKING:
    from conftest import Served

METHOD = "read_deployment_by_name"
RUN = ["prefect", "deployment", "run", "build-kb"]


async def _as_given(self: Any, name: str) -> str:
    return name


def test_the_literal_command_runs_the_deployment(served: Served) -> None:
    """The real command line finds build-kb/build-kb by its short name, runs it, and shows how it fails."""
    done = served.prefect("deployment", "run", "-p", 'project="nowhere.toml"', "build-kb", "--watch")
    assert "Creating flow run for deployment 'build-kb/build-kb'" in done.stdout
    assert "Flow run finished in state 'Failed'" in done.stdout + done.stderr
    told = served.log.read_text()
    assert "nowhere.toml: no such project file" in told
    assert "Traceback" not in told


def test_the_full_name_still_works(served: Served) -> None:
    """`localize-centers/localize-centers` is taken as it is."""
    done = served.prefect("deployment", "run", "localize-centers/localize-centers", "--start-in", "1 hour")
    assert done.returncode == 0, done.stderr
    assert "Creating flow run for deployment 'localize-centers/localize-centers'" in done.stdout


def test_an_unknown_name_is_said_to_be_unknown(served: Served) -> None:
    """A mistyped short name is answered by Prefect's own message."""
    done = served.prefect("deployment", "run", "build-bk")
    assert done.returncode != 0
    assert re.search(r"Deployment 'build-bk' not found", done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("name", "asked"), [("build-kb", "build-kb/build-kb"), ("build-kb/nightly", "build-kb/nightly")]
)
def test_a_name_without_a_slash_is_doubled(monkeypatch: pytest.MonkeyPatch, name: str, asked: str) -> None:
    """Flow and deployment have the same name here, so one word is enough."""
    monkeypatch.setattr(sys, "argv", RUN)
    monkeypatch.setattr(PrefectClient, METHOD, _as_given)
    setup_environment(ctx=None)
    client: Any = object.__new__(PrefectClient)
    assert asyncio.run(client.read_deployment_by_name(name)) == asked


@pytest.mark.parametrize("argv", [["prefect", "flow-run", "ls"], ["pytest"], ["prefect", "deployment", "ls"]])
def test_other_commands_are_left_alone(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    """Only `prefect deployment run` is taught anything."""
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(PrefectClient, METHOD, _as_given)
    setup_environment(ctx=None)
    assert vars(PrefectClient)[METHOD] is _as_given


def test_a_prefect_with_another_signature_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the method takes other arguments than we know, it stays as it is."""

    async def changed(self: Any, flow: str, deployment: str) -> None: ...

    monkeypatch.setattr(sys, "argv", RUN)
    monkeypatch.setattr(PrefectClient, METHOD, changed)
    setup_environment(ctx=None)
    assert vars(PrefectClient)[METHOD] is changed


def test_a_prefect_without_the_method_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the method is gone, nothing is put in its place and nothing is raised."""
    from prefect.client import orchestration

    class Changed: ...

    monkeypatch.setattr(sys, "argv", RUN)
    monkeypatch.setattr(orchestration, "PrefectClient", Changed)
    setup_environment(ctx=None)
    assert not hasattr(Changed, METHOD)
