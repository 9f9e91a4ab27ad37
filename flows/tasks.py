"""The two tasks the flows are made of: one whole stage, and one shard of a describe stage.

Prefect conducts, the pipeline works: a stage or a shard that is complete is recognised by its own
fingerprint and skipped, so Prefect caches nothing and keeps no result. That is also why a killed flow, when
it is retried or triggered anew, goes on where it stood. A task is never as small as one request: it costs
Prefect up to 60 ms.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import State, Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.errors import ThrottledError, TransientError, UniBindError
from data.show import duration, visible_lines
from pipeline.project import load_project
from pipeline.run import runner as stages
from pipeline.run.stage import StageResult

# What may pass by itself, once the scheduler's own patience is at its end: an endpoint that is down or full.
PASSING = (TransientError, ThrottledError, ConnectionError)


def in_one_line(record: logging.LogRecord) -> bool:
    """Keep the traceback of a user's mistake out of the log: its message says all. Our bugs keep theirs.

    Names from outside may hold what steers a terminal: the message is made visible.
    """
    record.msg, record.args = visible_lines(record.getMessage()), ()
    if record.exc_info and isinstance(record.exc_info[1], UniBindError):
        record.exc_info = None
    return True


for runs in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(runs).addFilter(in_one_line)


def may_pass(task: Task[..., Any], task_run: Any, state: State[Any]) -> bool:
    """Whether another try makes sense: never for a user's mistake, a refused key or a bug."""
    return isinstance(state.data, PASSING)


@task(
    name="stage",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=may_pass,
)
def run_stage(project: str, name: str) -> StageResult:
    """Run one stage of the project file `project`, or skip it when nothing it depends on has changed.

    The stages of stage 2, which a flow may run alone, refuse to go by a knowledge base that is out of date.
    """
    checked = load_project(Path(project))
    if name in {"localize", "train", "evaluate"}:
        stages.require_ground(checked, name)
    result = stages.run_stage(checked, name)
    told = (
        "skipped, nothing it depends on has changed"
        if result.skipped
        else f"done in {duration(result.seconds)}"
    )
    get_run_logger().info("%s: %s %s", name, told, result.summary or "")
    return result


@task(
    name="shard",
    task_run_name="{name} {shard}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=30,
    retry_condition_fn=may_pass,
)
def run_shard(project: str, name: str, shard: int) -> dict[str, Any]:
    """Run one shard of a describe stage, or skip it when it is complete."""
    done = stages.run_shard(load_project(Path(project)), name, shard)
    get_run_logger().info("%s, shard %d: %.1f s of work %s", name, shard, done["seconds"], done["summary"])
    return done
