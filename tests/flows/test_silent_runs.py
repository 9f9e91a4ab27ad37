"""The automation that marks silent runs crashed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Running

from flows.silent_runs import NAME, end_orphans, watch_silent_runs


@pytest.mark.usefixtures("served")
def test_the_server_is_given_it_once() -> None:
    """Serving a second time against the same server adds no second automation."""
    asyncio.run(watch_silent_runs())

    async def named() -> list[str]:
        async with get_client() as client:
            return [each.name for each in await client.read_automations_by_name(NAME) if each.enabled]

    assert asyncio.run(named()) == [NAME]


@pytest.mark.usefixtures("served")
def test_a_task_whose_flow_has_ended_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that runs by its state under a crashed flow is marked crashed, under a running one left."""
    monkeypatch.setattr("flows.silent_runs._SETTLED", timedelta(0))

    @flow
    def nothing() -> None:
        """Only to have runs of it."""

    async def strike() -> list[str]:
        async with get_client() as client:
            tasks = []
            for name in (Running(), Crashed()):
                run = await client.create_flow_run(nothing, state=Running())
                made = await client.create_task_run(
                    task(lambda: None, name="orphan"), run.id, dynamic_key="0", state=Running()
                )
                await client.set_flow_run_state(run.id, name, force=True)
                tasks.append(made.id)
            await end_orphans()
            found = [await client.read_task_run(each) for each in tasks]
            return [str(each.state_name) for each in found]

    assert asyncio.run(strike()) == ["Running", "Crashed"]
