"""The one exception tree.

    UniBindError                 anything a user can fix; shown as one line, never as a traceback
    ├── InputError               a file or a setting of the user's is wrong
    │   ├── SampleError          one media file cannot be read: the sample is quarantined, the run continues
    │   ├── ManifestError        the manifest or the category list is wrong; lists every mistake
    │   └── ProjectError         the project file is wrong; lists every mistake
    ├── MissingDependencyError   an optional package or model is not installed; names the install command
    ├── KnowledgeBaseError       the knowledge base is locked, incomplete or damaged
    │   └── DamagedError         a file is not what its maker wrote
    ├── TrainingError            the data cannot be trained on or evaluated
    │   └── NothingToTrainError  no train sample has a text, or all are of one category
    └── DescriberError           a describer failed
        ├── TransientError       can be retried: 408, 409, 425, 5xx, time-outs, torn answers
        ├── ThrottledError       429; may carry `retry_after` seconds
        ├── RequestError         fatal for this request: 400, 413, 422, 501, context length, content policy
        └── RunError             fatal for the run: 401, 402, 403, unknown model, quota, a parameter that the
            │                    endpoint does not take; resumable
            └── BudgetError      `budget_usd` is used up

Messages say what is wrong, where, and how to fix it. Vendor errors are wrapped once, at the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def first_line(error: Exception) -> str:
    """The first line of a library's error message; the name of its type where the message is empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def foreign_as(error: type[UniBindError], what: str) -> Iterator[None]:
    """Turn any exception that a library raises on a file from outside into one line: `error("what: reason")`.

    A damaged file can make the library that reads it raise any exception, so all of them are caught. Our own
    errors (`UniBindError`) pass unchanged.
    """
    try:
        yield
    except UniBindError:
        raise
    except Exception as failure:
        raise error(f"{what}: {first_line(failure)}") from failure


class UniBindError(Exception):
    """Anything a user can fix; the command line shows it as one line."""


class InputError(UniBindError):
    """A file or a setting of the user's is wrong."""


class SampleError(InputError):
    """One media file cannot be read. The sample is quarantined and the run continues."""


class ManifestError(InputError):
    """The manifest or the category list is wrong."""


class ProjectError(InputError):
    """The project file is wrong."""


class MissingDependencyError(UniBindError):
    """An optional package or model is not installed."""


class KnowledgeBaseError(UniBindError):
    """The knowledge base is locked, incomplete or damaged."""


class DamagedError(KnowledgeBaseError):
    """A file is not what its maker wrote: changed, exchanged, cut short, or gone."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class EngineError(UniBindError):
    """An engine cannot be reached, has lost its machines, or has a part that kills its workers."""


class TrainingError(UniBindError):
    """The data cannot be trained on or evaluated."""


class NothingToTrainError(TrainingError):
    """No train sample has a text to be aligned with, or all of them show the same category."""


class DescriberError(UniBindError):
    """A describer failed."""


class TransientError(DescriberError):
    """Can be retried: 408, 409, 425, 5xx, time-outs, torn answers.

    `maybe_paid`: an answer may have been generated, and charged for, although it did not arrive whole.
    """

    def __init__(self, message: str, *, maybe_paid: bool = False) -> None:
        super().__init__(message)
        self.maybe_paid = maybe_paid


class ThrottledError(DescriberError):
    """429: too many requests. `limits` are what the answer's headers said (`ask.request.Limits`)."""

    def __init__(self, message: str, *, retry_after: float | None = None, limits: Any = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.limits = limits


class RequestError(DescriberError):
    """Fatal for this request: it is quarantined with its body, and the run continues.

    `of_content`: the server rejected this request's content (its length, a policy); other requests may still
    be answered.
    """

    def __init__(self, message: str, *, of_content: bool = False) -> None:
        super().__init__(message)
        self.of_content = of_content


class RunError(DescriberError):
    """Fatal for the run, which stops and can be resumed."""


class BudgetError(RunError):
    """The budget has no room for the next request; the run goes on once `budget_usd` is raised."""
