"""The two Prefect tasks of all flows: one whole stage, and one shard of a describe stage.

The pipeline recognises finished stages and shards by their marks and skips them, so Prefect caches nothing
and stores no result. A killed flow therefore resumes when it is retried or triggered again. A task is never
as small as one request: it costs Prefect up to 60 ms.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

from prefect import State, Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Cancelled

from data.errors import ThrottledError, TransientError, UniBindError
from data.show import duration, visible_lines
from flows.progress import progress_shown
from flows.stopping import SuspendedError, stoppable
from pipeline.project import load_project
from pipeline.run import runner
from pipeline.run.stage import StageResult
from pipeline.run.stale import require_current_before

# Errors to retry after the scheduler's own retries: an endpoint that is down or overloaded.
TEMPORARY = (TransientError, ThrottledError, ConnectionError)


def in_one_line(record: logging.LogRecord) -> bool:
    """Remove the traceback of a UniBindError from a log record; tracebacks of bugs stay.

    Control characters in the message are escaped.
    """
    record.msg, record.args = visible_lines(record.getMessage()), ()
    if record.exc_info and isinstance(record.exc_info[1], UniBindError):
        record.exc_info = None
    return True


for runs in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(runs).addFilter(in_one_line)


def is_temporary(task: Task[..., Any], task_run: Any, state: State[Any]) -> bool:
    """Whether to retry: never after a user's mistake, a refused key or a bug."""
    return isinstance(state.data, TEMPORARY)


@task(
    name="stage",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=is_temporary,
)
def run_stage(project: str, name: str) -> StageResult:
    """Run one stage of the project file `project`, or skip it when nothing it depends on has changed.

    Raises InputError for localize, train and evaluate, which a flow may run alone, if an earlier stage is
    stale; and Prefect's CancelledRun where the flow run was suspended.
    """
    checked = load_project(Path(project))
    if name in {"localize", "train", "evaluate"}:
        require_current_before(checked, name)
    try:
        with stoppable(), progress_shown(f"{checked.name}-{name}"):
            result = runner.run_stage(checked, name)
    except SuspendedError:
        return cast(StageResult, _stopped())
    outcome = (
        "skipped, nothing it depends on has changed"
        if result.skipped
        else f"done in {duration(result.seconds)}"
    )
    get_run_logger().info("%s: %s %s", name, outcome, result.summary or "")
    return result


@task(
    name="shard",
    task_run_name="{name} {shard}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=is_temporary,
)
def run_shard(project: str, name: str, shard: int, shards: int = 1) -> dict[str, Any]:
    """Run one shard, of `shards`, of a describe stage, or skip it when it is complete.

    Returns its seconds and summary. Raises Prefect's CancelledRun where the flow run was suspended.
    """
    checked = load_project(Path(project))
    try:
        with stoppable(), progress_shown(f"{checked.name}-{name}", part=shard, parts=shards):
            done = runner.run_shard(checked, name, shard)
    except SuspendedError:
        return cast(dict[str, Any], _stopped())
    get_run_logger().info("%s, shard %d: %.1f s of work %s", name, shard, done["seconds"], done["summary"])
    return done


def _stopped() -> State[Any]:
    """The state of a task whose flow run was suspended. Prefect raises it in the flow."""
    return Cancelled(
        name="Suspended", message="stopped between two commits; the resumed run continues from there"
    )
