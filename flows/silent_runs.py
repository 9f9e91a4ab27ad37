"""Mark runs as crashed that send no heartbeat: their process was killed, or their machine is gone.

A live runner notices that its flow's process has ended and marks the run at once. This module covers the
rest: subflows, runs whose runner was killed with them, and their tasks. A run that stays "Running" cannot be
retried.
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
CHECK_S = 20.0  # between two searches for tasks whose flow run has ended
_SETTLED = timedelta(seconds=15)  # a task's last state may reach the server after that of its flow
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


async def watch_silent_runs() -> None:
    """Create the automation on the server, unless it has one of that name (which a user may have changed)."""
    try:
        await Automation.aread(name=NAME)
    except ValueError:  # Prefect's error for a missing automation
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
    """Mark running task runs as crashed if their flow run has ended; returns their number.

    A killed process does not report the state of its task, and Prefect's automations do not act on tasks.
    """
    ended = [StateType.CRASHED, StateType.CANCELLED, StateType.FAILED]
    running = [StateType.RUNNING, StateType.PENDING]
    flows = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ended)),
        end_time=FlowRunFilterEndTime.model_validate({"before_": datetime.now(UTC) - _SETTLED}),
    )
    tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=running)))
    async with get_client() as client:
        orphans = await client.read_task_runs(flow_run_filter=flows, task_run_filter=tasks)
        for run in orphans:
            await client.set_task_run_state(run.id, Crashed(message="its flow run has ended"), force=True)
    return len(orphans)


@contextmanager
def orphans_ended() -> Iterator[None]:
    """Call `end_orphans` every CHECK_S seconds in a thread, until the block ends."""
    stop = threading.Event()

    def watch() -> None:
        reported = False
        while not stop.wait(CHECK_S):
            try:
                asyncio.run(end_orphans())
                reported = False
            except Exception as error:  # the server is away; it may come back
                if not reported and not stop.is_set():
                    print(f"cannot search for tasks of killed flows: {type(error).__name__}", flush=True)
                reported = True

    thread = threading.Thread(target=watch, name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
