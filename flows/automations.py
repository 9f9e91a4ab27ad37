"""Automations on the server: what happens when a run crashes, is late or has used its budget up.

    python -m flows.automations [--webhook URL] [--reset]

`make serve` creates them too. They are Prefect's own: they are seen, edited and switched off on its page
(Automations), and what is there already is left as it is, unless `--reset` puts it back.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import typer
from prefect import State
from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import (
    ActionTypes,
    CallWebhook,
    ChangeFlowRunState,
    DoNothing,
    PauseDeployment,
)
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.settings import get_current_settings
from prefect.states import Failed
from pydantic import SecretStr

from data.errors import BudgetError, InputError, UniBindError
from flows.silent_runs import watch_silent_runs

TAG = "unibind"  # of every deployment in prefect.yaml, and so of their runs: other flows are left alone
OVER_BUDGET = "OverBudget"
WEBHOOK = "unibind-alerts"  # the block that holds the webhook's address
TRIES = 2  # further tries of a crashed run
_PAYLOAD = (
    '{"automation": {{ automation.name|tojson }}, "run": {{ flow_run.name|tojson }},'
    ' "state": {{ flow_run.state.name|tojson }}, "message": {{ flow_run.state.message|tojson }},'
    ' "page": {{ flow_run|ui_url|tojson }}}'
)


@dataclass(frozen=True)
class Reaction:
    """An automation of ours: the state of a run that triggers it, and what it does.

    `runs`: only at the first runs of a flow run, so that what tries it again comes to an end.
    """

    name: str
    description: str
    state: str
    action: ActionTypes
    enabled: bool = True
    alerts: bool = True  # calls the webhook, if there is one
    runs: int | None = None

    def automation(self, webhook: UUID | None) -> Automation:
        """The automation as the server takes it."""
        match: dict[str, Any] = {"prefect.resource.id": "prefect.flow-run.*"}
        if self.runs is not None:
            match["prefect.run-count"] = [str(number) for number in range(1, self.runs + 1)]
        actions = [self.action] if webhook is None or not self.alerts else [self.action, _call(webhook)]
        return Automation(
            name=self.name,
            description=self.description,
            enabled=self.enabled,
            tags=[TAG],
            trigger=EventTrigger(
                expect={f"prefect.flow-run.{self.state}"},
                match=match,
                match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=actions,
        )


REACTIONS = (
    Reaction(
        name="unibind: a run has crashed",
        description="Its process was killed or its machine is gone. Retry it: finished work is skipped.",
        state="Crashed",
        action=DoNothing(),
    ),
    Reaction(
        name="unibind: a run is late",
        description="No worker has taken it: none is running, or all are busy.",
        state="Late",
        action=DoNothing(),
    ),
    Reaction(
        name="unibind: a budget is used up",
        description="The deployment's schedule is paused. Raise `budget_usd`, then switch it on again.",
        state=OVER_BUDGET,
        action=PauseDeployment(source="inferred", deployment_id=None),
    ),
    Reaction(
        name="unibind: try a crashed run again",
        description=f"At most {TRIES} times. Off until you switch it on: tries may cost money.",
        state="Crashed",
        action=ChangeFlowRunState(
            name="AwaitingRetry", state=StateType.SCHEDULED, message="tried again after a crash", force=True
        ),
        enabled=False,
        alerts=False,
        runs=TRIES,
    ),
)


def over_budget(error: BudgetError) -> State[Any]:
    """The state of a flow run whose budget is used up: a failure with a name of its own."""
    return Failed(name=OVER_BUDGET, message=str(error), data=error)


async def create(*, webhook: str | None = None, reset: bool = False) -> list[Automation]:
    """Create the automations that the server does not have; returns all of ours as they are there.

    `webhook`: an address that the alerts call as well. It is kept on the server, and an automation that is
    there already gets the call added. `reset` puts changed automations back. Raises InputError for an address
    that is no http(s) one.
    """
    block = None if webhook is None else await _save(webhook)
    found = []
    for reaction in REACTIONS:
        wanted = reaction.automation(block)
        there = await _read(reaction.name)
        if there is None:
            there = await wanted.acreate()
        elif reset:
            wanted.id = there.id
            await wanted.aupdate()
            there = wanted
        elif block is not None and reaction.alerts and not any(_calls(each, block) for each in there.actions):
            there.actions = [*there.actions, _call(block)]
            await there.aupdate()
        found.append(there)
    return found


async def _read(name: str) -> Automation | None:
    try:
        return await Automation.aread(name=name)
    except ValueError:  # Prefect's error for a missing one
        return None


async def _save(address: str) -> UUID:
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--webhook {address!r} is no address; give one that begins with http:// or https://"
        )
    headers: Any = {"Content-Type": "application/json"}
    saved = await Webhook(url=SecretStr(address), headers=headers).asave(WEBHOOK, overwrite=True)
    return UUID(str(saved))


def _call(block: UUID) -> CallWebhook:
    return CallWebhook(block_document_id=block, payload=_PAYLOAD)


def _calls(action: ActionTypes, block: UUID) -> bool:
    return isinstance(action, CallWebhook) and action.block_document_id == block


def main(
    webhook: Annotated[
        str | None, typer.Option(help="An address that every alert calls (POST, JSON).")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Put automations back that were changed.")] = False,
) -> None:
    """Create the automations for crashed and late runs and used-up budgets on the Prefect server."""
    try:
        asyncio.run(watch_silent_runs())
        found = asyncio.run(create(webhook=webhook, reset=reset))
    except UniBindError as error:
        sys.exit(f"error: {error}")
    for each in found:
        print(f"{'on ' if each.enabled else 'off'}  {each.name}")
    page = get_current_settings().ui_url
    print(f"see and edit them: {page}/automations" if page else "see them: prefect automation ls")


if __name__ == "__main__":
    typer.run(main)
