"""The flow build-kb."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

import pipeline.run.runner
from data.errors import BudgetError, RunError, TransientError
from flows import tasks
from flows.automations import OVER_BUDGET
from flows.build_kb import build_kb
from pipeline.project import ProjectFile

BUILDING = [
    "world",
    "ingest",
    "describe-categories 0",
    "describe-categories 1",
    "describe-categories",
    "describe-contrasts",
    "describe-samples 0",
    "describe-samples 1",
    "describe-samples",
    "encode",
]


@pytest.mark.usefixtures("served")
def test_runs_the_stages_in_order_and_then_the_downstream_flows(project: str, ran: list[str]) -> None:
    """Every shard is a task of its own, and localization and training are runs of their own flows."""
    state = build_kb(project, return_state=True)
    assert state.is_completed()
    assert ran == [*BUILDING, "localize", "train", "evaluate", "report"]
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run_id).name == f"build-kb {project}"
        below = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
        )
    assert {run.name for run in below} == {f"localize-centers {project}", f"train-alignment {project}"}


@pytest.mark.usefixtures("served")
def test_without_downstream_it_ends_with_the_embeddings(project: str, ran: list[str]) -> None:
    """`downstream=False` stops after encoding."""
    build_kb(project, downstream=False)
    assert ran == BUILDING


@pytest.mark.usefixtures("served")
def test_it_publishes_as_it_goes(project: str, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """From before the first stage to the end of the downstream flows, and what each stage has written."""

    @contextmanager
    def publishing(file: ProjectFile, stages: Collection[str]) -> Iterator[Callable[[], None]]:
        assert (file.path, "encode" in stages) == (Path(project).resolve(), True)
        ran.append("begun")
        yield lambda: ran.append("sent")
        ran.append("published")

    monkeypatch.setattr("flows.build_kb.publishing", publishing)
    build_kb(project)
    stages = [name for name in BUILDING if " " not in name]
    told = [name for name in ran if " " not in name]
    sent = [each for name in stages for each in (name, "sent")]
    assert told == ["begun", *sent, "localize", "train", "evaluate", "report", "published"]


@pytest.mark.usefixtures("served", "ran")
def test_a_users_mistake_fails_in_one_line(
    project: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused key stops the flow at once: the message as its state, no retry, no traceback in the log."""
    tries: list[str] = []

    def refuse(project: Any, name: str, shard: int) -> dict[str, Any]:
        tries.append(name)
        raise RunError("https://llm.example answered 401: check OPENAI_API_KEY")

    monkeypatch.setattr(pipeline.run.runner, "run_shard", refuse)
    state = build_kb(project, return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert state.message.endswith("RunError: https://llm.example answered 401: check OPENAI_API_KEY")
    assert tries == ["describe-categories"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.usefixtures("served", "ran")
def test_a_used_up_budget_is_a_state_of_its_own(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Automations and filters see it; it is a failure, tried once, with the message of the error."""
    tries: list[str] = []

    def refuse(project: Any, name: str, shard: int) -> dict[str, Any]:
        tries.append(name)
        raise BudgetError("used up")

    monkeypatch.setattr(pipeline.run.runner, "run_shard", refuse)
    state = build_kb(project, return_state=True)
    assert (state.name, state.is_failed(), state.message) == (
        OVER_BUDGET,
        True,
        "used up",
    )
    with pytest.raises(BudgetError):
        build_kb(project)
    assert tries == 2 * ["describe-categories"]


@pytest.mark.usefixtures("served")
def test_a_passing_failure_is_tried_again(
    project: str, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that was down for a while costs a retry of one shard, not the run."""
    tries: list[int] = []

    def falter(project: Any, name: str, shard: int) -> dict[str, Any]:
        tries.append(shard)
        if len(tries) == 1:
            raise TransientError("connection lost")
        return {"seconds": 1.0, "summary": {}}

    monkeypatch.setattr(pipeline.run.runner, "run_shard", falter)
    monkeypatch.setattr(tasks.run_shard, "retry_delay_seconds", 0)
    build_kb(project, downstream=False)
    assert tries == [0, 0, 1, 0, 1]
    assert ran == [each for each in BUILDING if " " not in each]
