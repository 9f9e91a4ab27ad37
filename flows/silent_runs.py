"""Mark runs crashed that have fallen silent: their process was killed, or their machine went away.

A runner that lives sees its flow's process die and says so at once. This is for what it does not see:
subflows, runs whose runner was killed with them, and the tasks of either. A run that nobody marks stays
"Running", and cannot be retried.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.states import Crashed

NAME = "mark silent runs crashed"
SILENCE = timedelta(seconds=90)  # three heartbeats, see flows.heartbeat_frequency in pyproject.toml
MESSAGE = f"no heartbeat for {SILENCE.seconds} seconds; retry it: finished stages are skipped"
HEARTBEAT = "prefect.flow-run.heartbeat"
LOOK_S = 20.0  # from one look for tasks without a flow to the next
_SETTLED = timedelta(seconds=15)  # a task's last state may reach the server after its flow's
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


async def watch_silent_runs() -> None:
    """Give the server the automation, unless it has one of that name (which a user may have changed)."""
    try:
        await Automation.aread(name=NAME)
    except ValueError:  # how Prefect says that there is none
        await Automation(
            name=NAME,
            trigger=EventTrigger(
                after={HEARTBEAT},
                expect={HEARTBEAT, *ENDS},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=SILENCE,
            ),
            actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=MESSAGE, force=False)],
        ).acreate()


async def end_orphans() -> int:
    """Mark crashed the task runs that go on by their state while their flow run has ended; returns how many.

    A process that is killed says nothing of the task it was at, and no automation of Prefect's acts on tasks.
    """
    ended = [StateType.CRASHED, StateType.CANCELLED, StateType.FAILED]
    going = [StateType.RUNNING, StateType.PENDING]
    flows = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ended)),
        end_time=FlowRunFilterEndTime.model_validate({"before_": datetime.now(UTC) - _SETTLED}),
    )
    tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=going)))
    async with get_client() as client:
        orphans = await client.read_task_runs(flow_run_filter=flows, task_run_filter=tasks)
        for run in orphans:
            await client.set_task_run_state(run.id, Crashed(message="its flow run has ended"), force=True)
    return len(orphans)


@contextmanager
def orphans_ended() -> Iterator[None]:
    """Look for such task runs now and then, in a thread, until the block ends."""
    stop = threading.Event()

    def watch() -> None:
        silent = False
        while not stop.wait(LOOK_S):
            try:
                asyncio.run(end_orphans())
                silent = False
            except Exception as error:  # the server is away; it may come back
                if not silent and not stop.is_set():
                    print(f"tasks of killed flows are not looked for: {type(error).__name__}", flush=True)
                silent = True

    thread = threading.Thread(target=watch, name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
