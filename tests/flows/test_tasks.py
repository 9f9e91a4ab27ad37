"""The two tasks of the flows, without Prefect around them."""

from __future__ import annotations

import logging
import sys

import pytest
from prefect.logging import disable_run_logger
from prefect.states import Failed

from data.errors import ProjectError, RunError, ThrottledError, TransientError
from flows.tasks import in_one_line, is_temporary, run_shard, run_stage


def test_a_stage_is_run_for_the_project_at_the_path(project: str, ran: list[str]) -> None:
    """The task reads the project file itself and hands back what the stage told."""
    with disable_run_logger():
        assert run_stage.fn(project, "ingest").name == "ingest"
    assert ran == ["ingest"]


def test_a_shard_is_run_by_its_number(project: str, ran: list[str]) -> None:
    """A shard's task runs that shard and no other."""
    with disable_run_logger():
        assert run_shard.fn(project, "describe-samples", 3)["seconds"] == 1.0
    assert ran == ["describe-samples 3"]


def test_a_missing_project_file_is_named() -> None:
    """A wrong path is the user's mistake, said in one line."""
    with pytest.raises(ProjectError, match=r"nowhere\.toml: no such project file"):
        run_stage.fn("nowhere.toml", "ingest")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransientError("503"), True),
        (ThrottledError("429"), True),
        (ConnectionResetError("peer"), True),
        (RunError("401"), False),
        (ProjectError("mistake"), False),
        (ZeroDivisionError("our bug"), False),
    ],
)
def test_only_what_passes_is_tried_again(error: Exception, again: bool) -> None:
    """Retries are for endpoints that come back, not for mistakes or bugs."""
    assert is_temporary(run_stage, None, Failed(data=error)) is again


@pytest.mark.parametrize(("error", "kept"), [(ProjectError("mistake"), False), (KeyError("our bug"), True)])
def test_the_log_keeps_tracebacks_for_bugs(error: Exception, kept: bool) -> None:
    """A user's mistake is logged without its traceback, anything else with it."""
    try:
        raise error
    except (ProjectError, KeyError):
        record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())
    assert in_one_line(record)
    assert bool(record.exc_info) is kept


def test_names_in_the_log_steer_no_terminal() -> None:
    """A message with a hostile name is logged with its escapes, arguments filled in."""
    record = logging.LogRecord(
        "prefect", logging.INFO, "x.py", 1, "%s: %s", ("ingest", "a\x1b[31m\u202e"), None
    )
    assert in_one_line(record)
    assert record.getMessage() == "ingest: a\\x1b[31m\\u202e"
