"""What a run is doing, from its lock, marks and ledger."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from data.errors import InputError
from data.lock import write_lock
from kb_builder.ask.asker import Progress
from kb_builder.ask.session import PauseNote
from pipeline.project import load_project
from pipeline.run.jobs import plan
from pipeline.run.marks import remove_mark
from pipeline.ui.serve import _listening
from pipeline.ui.state import Desk
from pipeline.ui.watch import Runner, counts_text, progress, stale_stages


def test_a_finished_run(finished_cups: Path) -> None:
    """Every stage is done, with its time and counts; the ledger's answers are counted."""
    project = load_project(finished_cups)
    now = progress(project, stale_stages(project))
    assert now.holder is None and now.left_s is None
    assert [stage.name for stage in now.stages] == plan(project)
    assert {stage.state for stage in now.stages} == {"done"}
    assert now.requests is not None and (now.requests.answered, now.requests.failed) == (24, 0)
    described = next(stage for stage in now.stages if stage.name == "describe-categories")
    assert described.shards == 1 and described.counts["ok"] == 24


def test_a_run_at_work(cups: Path) -> None:
    """The lock says which stage is at work; what follows waits; the time left comes from finished shards."""
    project = load_project(cups)
    for name in ("describe-samples", "encode"):
        remove_mark(project, name)
    with write_lock(project.run / "run.lock", "describe-samples"):
        now = progress(project, {"localize": "its settings changed"})
    assert now.holder is not None and now.holder.doing == "describe-samples"
    states = {stage.name: (stage.state, stage.note) for stage in now.stages}
    assert states["describe-samples"] == ("running", "") and states["encode"] == ("waiting", "")
    assert states["localize"] == ("stale", "its settings changed") and states["ingest"] == ("done", "")
    assert now.left_s == 0.0
    runner = Runner(project)
    with write_lock(project.run / "run.lock"), pytest.raises(InputError, match="at work"):
        runner.start()
    with pytest.raises(InputError, match="no run is at work"):
        runner.pause()
    host = socket.gethostname()
    (project.run / "run.lock").write_text(json.dumps({"pid": 1, "host": f"not-{host}"}), encoding="utf-8")
    with pytest.raises(InputError, match=f"at work on not-{host}"):
        runner.pause()
    assert runner.lines() == []


def test_a_pause_is_seen_from_another_process(cups: Path) -> None:
    """It is there from its beginning to its end; what a killed run left behind is not."""
    project = load_project(cups)
    shown: list[Progress] = []
    note = PauseNote(project.kb, shown.append)
    going = Progress(
        answered=1, from_ledger=0, failed=0, in_flight=1, limit=4, spent_usd=None, saved_usd=0.0, paused=None
    )
    note(dataclasses.replace(going, paused="left behind"))
    for path in project.kb.glob(".paused-*"):
        path.write_text(json.dumps({"why": "left behind", "since": 1.0}), encoding="utf-8")
    with write_lock(project.run / "run.lock", "describe-categories"):
        assert progress(project, {}).pauses == []
        note(dataclasses.replace(going, paused="HTTP 503"))
        assert [pause.why for pause in progress(project, {}).pauses] == ["HTTP 503"]
        note(going)
        assert progress(project, {}).pauses == [] and not list(project.kb.glob(".paused-*"))
    assert len(shown) == 3


def test_counts_in_a_line() -> None:
    """Numbers with separators, small tables whole, longer ones and lists by their length, nothing empty."""
    counts: dict[str, Any] = {
        "ok": 12345,
        "rejected": {"no_name": 3, "dup_near": 4},
        "spent_usd": None,
        "loss": 1.23456,
        "ids": ["a", "b"],
        "none": [],
        "skipped": "why",
        "many": {str(number): number for number in range(9)},
    }
    assert counts_text(counts) == (
        "ok 12,345, rejected (no_name 3, dup_near 4), loss 1.235, ids 2, skipped why,"
        " many (0 0, 1 1, 2 2, 3 3, 4 4, 5 5, …)"
    )


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "\x1b[31m\x07\r"])
def test_an_address_that_cannot_be_used(host: str) -> None:
    """A name that is none, and a port that is in use."""
    with pytest.raises(InputError, match="cannot be used"):
        _listening(host, 0)
    with _listening("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(InputError, match="--port"):
            _listening("127.0.0.1", first.getsockname()[1])


def test_studies_are_served_by_name(
    cups: Path, opening: Callable[..., Desk], served: Callable[..., None]
) -> None:
    """The page of a study that is there; a name is looked up, and is no path."""
    run = load_project(cups).run
    (run / "studies" / "s").mkdir(parents=True)
    (run / "studies" / "s" / "study.html").write_text("<p>a study", encoding="utf-8")
    (run / "study.html").write_text("<p>not one", encoding="utf-8")

    async def steps(client: httpx.AsyncClient) -> None:
        page = await client.get("/report/cups?study=s")
        assert page.text == "<p>a study" and "sandbox" in page.headers["content-security-policy"]
        assert "/report/cups?study=s" in (await client.get("/results")).text
        for name in ("..", ".", "s/../s", "other", "%2e%2e"):
            assert (await client.get(f"/report/cups?study={name}")).status_code == 404

    served(opening(cups), steps)
