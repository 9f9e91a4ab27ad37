"""A real worker process of a work pool runs the deployments of prefect.yaml, stopped on the way."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from markdown_it import MarkdownIt

from bench.torture.ground import RUN, Server, fake_server, make_project

if TYPE_CHECKING:
    from conftest import Served

ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert(1)</script> [x](http://evil.example)"
IN_FLIGHT = 2
DEADLINE_S = 300.0


@dataclass(frozen=True)
class Worker:
    """A worker at work, and the server that it asks for runs."""

    served: Served
    log: Path
    api: httpx.Client

    def start(self, project: Path) -> str:
        """Trigger build-kb; returns the flow run's id."""
        name = "build-kb/build-kb-worker"
        started = self.served.prefect("deployment", "run", name, "-p", f'project="{project}"')
        found = re.search(r"UUID: (\S+)", started.stdout)
        assert found, started.stdout + started.stderr
        return found[1]

    def run(self, run_id: str) -> Any:
        """A flow run as the server has it."""
        return self.api.get(f"/flow_runs/{run_id}").raise_for_status().json()

    def state(self, run_id: str) -> str:
        """The name of its state."""
        return str(self.run(run_id)["state"]["name"])

    def set(self, run_id: str, state: dict[str, Any]) -> None:
        """What a button of Prefect's page does."""
        self.api.post(f"/flow_runs/{run_id}/set_state", json={"state": state}).raise_for_status()

    def artifacts(self, run_id: str) -> dict[str, Any]:
        """The artifacts of a flow run and of its subflows, by key."""
        below = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}}
        runs = self.api.post("/flow_runs/filter", json=below).raise_for_status().json()
        wanted = {"artifacts": {"flow_run_id": {"any_": [run_id, *(each["id"] for each in runs)]}}}
        listed = self.api.post("/artifacts/filter", json=wanted).raise_for_status().json()
        return {each["key"]: each for each in sorted(listed, key=lambda each: each["created"])}

    def until(self, condition: Callable[[], bool], problem: str) -> None:
        """Wait for a condition; fail with the end of the worker's log."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{problem}; {self.log.read_text()[-3000:]}")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def worker(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """`prefect worker start` for a pool to which the deployments of prefect.yaml were deployed.

    Their names get a suffix: those without one belong to the `make serve` of the other tests.
    """
    folder = tmp_path_factory.mktemp("worker")
    file = folder / "prefect.yaml"
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    file.write_text(re.sub(r"(?m)^(  - name: .*)$", r"\1-worker", text), encoding="utf-8")
    made = served.prefect("work-pool", "create", "unibind", "--type", "process")
    assert made.returncode == 0, made.stdout + made.stderr
    deployed = served.prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    log = folder / "worker.log"
    command = [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--pool", "unibind"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--limit", "1"],
            cwd=ROOT,
            env=served.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as api:
            yield Worker(served, log, api)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Server]:
    """A server that takes its time for every answer, and notes what it answered."""
    with fake_server(tmp_path, latency_s=0.5) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, asked: Server) -> Path:
    """A project that takes some seconds to be described, with a hostile category and a broken picture."""
    folder = make_project(tmp_path / "project", asked.url)
    file = folder / "unibind.toml"
    asking = f"n = 8\nconcurrency = {IN_FLIGHT}\ncontrast_pairs = 0\n"
    text = file.read_text(encoding="utf-8").replace("n = 4\n", asking)
    file.write_text(text, encoding="utf-8")
    rows = (folder / "manifest.csv").read_text(encoding="utf-8").replace(",red,", f',"{HOSTILE}",')
    (folder / "manifest.csv").write_text(rows, encoding="utf-8")
    (folder / "red0.png").write_bytes(b"<b>no picture</b>")
    return file


def test_cancelled_while_describing_it_loses_nothing_and_goes_on(
    worker: Worker, project: Path, asked: Server
) -> None:
    """Cancelled on the page, then retried to its end: every answer was kept, no request was sent twice."""
    run_id = worker.start(project)
    worker.until(lambda: sum(asked.answered().values()) >= 3, "nothing is asked")
    worker.set(run_id, {"type": "CANCELLING", "name": "Cancelling"})
    worker.until(lambda: worker.state(run_id) == "Cancelled", "it is not cancelled")
    answered = asked.answered()
    assert _entries(project) == sum(answered.values())
    assert not (project.parent / RUN / "report.html").exists()

    retried = worker.served.prefect("flow-run", "retry", run_id)
    assert retried.returncode == 0, retried.stdout + retried.stderr
    worker.until(lambda: worker.state(run_id) in {"Completed", "Failed", "Crashed"}, "it does not end")
    run = worker.run(run_id)
    assert run["state"]["name"] == "Completed", worker.log.read_text()[-3000:]
    assert (project.parent / RUN / "report.html").exists()
    assert set(asked.answered().values()) == {1}
    assert run["work_pool_name"] == "unibind"
    assert {"unibind", "knowledge-base", "project:small"} <= set(run["tags"])
    _check_artifacts(worker.artifacts(run_id), project)


def _check_artifacts(made: dict[str, Any], project: Path) -> None:
    """What the pages of Prefect show of the finished run, hostile names as text."""
    kinds = {key: each["type"] for key, each in made.items()}
    assert kinds["summary-small"] == kinds["report-small"] == kinds["ui-small"] == "markdown"
    assert kinds["results-small"] == kinds["rejected-small"] == "table"
    assert kinds["space-small"] == "image"
    assert made["space-small"]["data"].startswith("data:image/png;base64,")
    for step in ("describe-categories-category-descriptions", "encode-encode-texts-minilm"):
        progress = made[f"progress-small-{step}"]
        assert (progress["type"], progress["data"]) == ("progress", 100.0)
    page = made["summary-small"]["data"]
    assert "The right category is found for" in page
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert not re.findall(r"<(script|b|a|img)\b", shown)
    assert "/report/small)" in made["report-small"]["data"]
    assert str(project.parent / RUN / "report.html") in made["report-small"]["description"]
    results = json.loads(made["results-small"]["data"])
    assert {row["modality"] for row in results} >= {"image"}
    assert [row for row in json.loads(made["rejected-small"]["data"]) if row["what"] == "samples"]


@pytest.mark.slow
def test_suspended_while_describing_it_stops_at_once_and_goes_on(
    worker: Worker, project: Path, asked: Server
) -> None:
    """ "Suspend" on the page, then "Resume": the same, and no process waits in between."""
    run_id = worker.start(project)
    worker.until(lambda: sum(asked.answered().values()) >= 3, "nothing is asked")
    limit = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    details = {"pause_timeout": limit, "pause_reschedule": True}
    worker.set(run_id, {"type": "PAUSED", "name": "Suspended", "state_details": details})
    worker.until(lambda: "is paused." in worker.log.read_text(), "its process goes on")
    assert worker.state(run_id) == "Suspended"
    answered = asked.answered()
    assert _entries(project) == sum(answered.values())
    assert not list((project.parent / RUN / "stages").glob("describe-samples*"))

    worker.api.post(f"/flow_runs/{run_id}/resume", json={}).raise_for_status()
    worker.until(lambda: worker.state(run_id) in {"Completed", "Failed", "Crashed"}, "it does not end")
    assert worker.state(run_id) == "Completed", worker.log.read_text()[-3000:]
    assert set(asked.answered().values()) == {1}


def _entries(project: Path) -> int:
    ledger = project.parent / RUN / "kb" / "ledger.sqlite"
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as opened:
        return int(opened.execute("SELECT count(*) FROM entries").fetchone()[0])
