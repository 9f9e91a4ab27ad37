"""A flow, its server, its runner killed or cancelled while it describes: states become true, it goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from bench.torture.ground import RUN, Server, fake_server, make_project

if TYPE_CHECKING:
    from conftest import Served

IN_FLIGHT = 2
TRUE_WITHIN_S = 120.0
ENDED = {"Crashed", "Cancelled", "Failed", "Completed"}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Server]:
    """A server that takes its time for every answer, and notes what it answered."""
    with fake_server(tmp_path, latency_s=1.0) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, asked: Server) -> Path:
    """A project whose categories take a while to be described; returns its file."""
    file = make_project(tmp_path / "project", asked.url) / "unibind.toml"
    text = file.read_text(encoding="utf-8").replace("n = 4\n", f"n = 20\nconcurrency = {IN_FLIGHT}\n")
    file.write_text(text, encoding="utf-8")
    return file


def _kill_flow(served: Served, run_id: str) -> None:
    os.kill(_child(served, "prefect.engine"), signal.SIGKILL)


def _kill_server(served: Served, run_id: str) -> None:
    os.kill(_child(served, "server start"), signal.SIGKILL)


def _kill_runner(served: Served, run_id: str) -> None:
    served.process.kill()
    served.process.wait()


def _cancel_as_the_page_does(served: Served, run_id: str) -> None:
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    httpx.post(f"{served.url}/flow_runs/{run_id}/set_state", json=state, trust_env=False).raise_for_status()


def _cancel_by_command(served: Served, run_id: str) -> None:
    assert served.prefect("flow-run", "cancel", run_id).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strike", "ends"),
    [
        (_kill_flow, {"Crashed"}),
        (_cancel_as_the_page_does, {"Cancelled"}),
        (_cancel_by_command, {"Cancelled"}),
        (_kill_server, {"Completed"}),
        (_kill_runner, {"Crashed"}),
    ],
)
def test_states_become_true_and_nothing_is_asked_twice(
    served_alone: Served,
    asked: Server,
    project: Path,
    strike: Callable[[Served, str], None],
    ends: set[str],
) -> None:
    """Within two minutes neither the flow run nor a task of it is said to run; a second run ends the work."""
    run_id = _start(served_alone, project)
    _until(lambda: sum(asked.answered().values()) >= 3, "no answer")
    flow = _child(served_alone, "prefect.engine")
    strike(served_alone, run_id)
    _until(lambda: _states(served_alone, run_id)[0] in ends, f"the flow is not {ends}")
    _until(lambda: set(_states(served_alone, run_id)) <= ENDED, "a task goes on by its state", seconds=60)
    _until(lambda: not _lives(flow), "its process goes on", seconds=30)
    if served_alone.process.poll() is None and ends != {"Completed"}:
        again = _start(served_alone, project)
        _until(lambda: _states(served_alone, again)[0] in ENDED, "the second run does not end")
        assert _states(served_alone, again)[0] == "Completed"
        assert (project.parent / RUN / "kb" / "descriptions" / "category" / "part-00000.parquet").exists()
    twice = sum(times - 1 for times in asked.answered().values())
    assert twice <= IN_FLIGHT


def _start(served: Served, project: Path) -> str:
    parameters = ("-p", f'project="{project}"', "-p", "downstream=false")
    started = served.prefect("deployment", "run", "build-kb", *parameters)
    run_id = re.search(r"UUID: (\S+)", started.stdout)
    assert run_id, started.stdout + started.stderr
    return run_id[1]


def _states(served: Served, run_id: str) -> list[str]:
    """The state of a flow run, then those of its tasks; ["away"] while no server answers."""
    try:
        with httpx.Client(base_url=served.url, trust_env=False, timeout=10) as client:
            run = client.get(f"/flow_runs/{run_id}").raise_for_status().json()
            tasks: Any = {"task_runs": {"flow_run_id": {"any_": [run_id]}}}
            listed = client.post("/task_runs/filter", json=tasks).raise_for_status().json()
    except httpx.HTTPError:
        return ["away"]
    return [str((each["state"] or {}).get("name")) for each in (run, *listed)]


def _child(served: Served, words: str) -> int:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(served.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = [line.split()[0] for line in listed.stdout.splitlines() if words in line]
    return int(found)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: Callable[[], bool], problem: str, *, seconds: float = TRUE_WITHIN_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.5)
