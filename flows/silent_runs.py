"""Mark flow runs crashed that have fallen silent: their process was killed, or their machine went away.

A runner that lives sees its flow's process die and says so at once. This is for what it does not see:
subflows, and runs whose runner was killed with them. A run that nobody marks stays "Running", and cannot be
retried.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

NAME = "mark silent runs crashed"
SILENCE = timedelta(seconds=90)  # three heartbeats, see flows.heartbeat_frequency in pyproject.toml
MESSAGE = f"no heartbeat for {SILENCE.seconds} seconds; retry it: finished stages are skipped"
HEARTBEAT = "prefect.flow-run.heartbeat"
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
