"""The automations: created once, edited by their user, triggered by what happens to a run."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect import State, flow
from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed, Late, Running

from data.errors import BudgetError, InputError
from flows.automations import OVER_BUDGET, REACTIONS, TRIES, create, over_budget

if TYPE_CHECKING:
    from conftest import Served

CRASHED, LATE, BUDGET, AGAIN = (each.name for each in REACTIONS)


@pytest.fixture
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on loopback: its address, and what it was told."""
    told: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()
        thread.join()


@pytest.fixture
def automations(served: Served) -> Iterator[Callable[..., list[Automation]]]:
    """`automations(**options)` creates them; afterwards they are as `make serve` makes them."""
    yield lambda **options: asyncio.run(create(**options))
    asyncio.run(create(reset=True))


@pytest.mark.usefixtures("served")
def test_make_serve_creates_them_and_they_can_be_listed(served: Served) -> None:
    """Prefect's own command line shows them, with what triggers them."""
    listed = served.prefect("automation", "ls").stdout
    for each in REACTIONS:
        assert each.name in listed


def test_what_a_user_changed_stays_until_it_is_reset(automations: Callable[..., list[Automation]]) -> None:
    """A second `make serve` overwrites nothing."""
    (edited, *_) = automations()
    edited.description = "mine"
    edited.enabled = False
    edited.update()
    assert automations()[0].description == "mine"
    assert len(automations()) == len(REACTIONS)
    (back, *_) = automations(reset=True)
    assert (back.id, back.description, back.enabled) == (edited.id, REACTIONS[0].description, True)


def test_a_run_that_crashes_or_is_late_is_told_to_the_webhook(
    automations: Callable[..., list[Automation]], listening: tuple[str, list[dict[str, Any]]]
) -> None:
    """With its name, state and message as JSON, whatever characters they have; others' runs are not told."""
    address, told = listening
    automations(webhook=address)
    automations(webhook=address)  # adds no second call
    hostile = 'no "memory"\n{{ 1 + 1 }} <b>'
    strangers, ours, late = _run("mine"), _run("mine", "unibind"), _run("unibind")
    _set(strangers, Crashed())
    _set(late, Late())
    _set(ours, Crashed(message=hostile))
    _until(lambda: len(told) >= 2)
    found = {each["run"]: each for each in told}
    assert len(told) == 2
    assert found.keys() == {ours.name, late.name}
    assert found[ours.name]["message"] == hostile
    assert (found[ours.name]["automation"], found[late.name]["automation"]) == (CRASHED, LATE)


def test_a_used_up_budget_pauses_the_schedule(automations: Callable[..., list[Automation]]) -> None:
    """A nightly run would fail every night until somebody raises the budget."""
    automations()
    run = _run("unibind")
    assert not _paused(run)
    _set(run, over_budget(BudgetError("the budget of $5 is used up")))
    _until(lambda: _paused(run))


def test_the_state_of_a_used_up_budget_is_a_failure_with_a_name() -> None:
    """So that it can be filtered and reacted to."""
    state = over_budget(BudgetError("used up"))
    assert (state.name, state.is_failed(), state.message) == (
        OVER_BUDGET,
        True,
        "used up",
    )


def test_switched_on_a_crashed_run_is_tried_again_but_not_forever(
    automations: Callable[..., list[Automation]],
) -> None:
    """The same flow run is scheduled again, until it has run as often as its trigger says."""
    again = automations()[-1]
    assert (again.name, again.enabled) == (AGAIN, False)
    again.enabled = True
    again.update()
    often, first = _run("unibind"), _run("unibind")
    for _ in range(TRIES):
        _set(often, Running())
    _set(often, Crashed())
    _set(first, Crashed())
    _until(lambda: _state(first) == "AwaitingRetry")  # events are taken in order
    assert _state(often) == "Crashed"


def test_an_address_that_is_none_is_refused() -> None:
    """Before anything is changed."""
    with pytest.raises(InputError, match="--webhook 'evil' is no address"):
        asyncio.run(create(webhook="evil"))


@flow
def nothing() -> None:
    """Only to have a deployment and runs of it, which nobody serves."""


def _run(*tags: str) -> FlowRun:
    """A run at work, of a new deployment without tags."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(nothing), str(uuid4()))
        run = client.create_flow_run_from_deployment(deployment, tags=tags)
    _set(run, Running())
    return run


def _set(run: FlowRun, state: State[Any]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def _state(run: FlowRun) -> str | None:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state_name


def _paused(run: FlowRun) -> bool:
    assert run.deployment_id is not None
    with get_client(sync_client=True) as client:
        return bool(client.read_deployment(run.deployment_id).paused)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
