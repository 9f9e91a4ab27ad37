"""`[run] publish`: what a run makes is sent to an object store as it goes, and published when it ends.

After every error of the network the run continues (kb_builder/publish/sending.py). Only what is wrong at its
start ends it, before anything was asked: a place that cannot be used, another machine that is at work there,
or answers there that this knowledge base lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.errors import first_line
from data.lock import write_lock
from data.show import visible
from pipeline.project import ProjectFile

if TYPE_CHECKING:
    from kb_builder.publish.sending import Sending

LOCK = "publish.lock"  # held in the run's folder as long as anything may be published
_PAID = {"describe-categories", "describe-contrasts", "describe-samples", "encode", "localize"}


def say(line: str) -> None:
    """Tell a line on stderr, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"  note: {visible(line)}", file=sys.stderr)


@contextmanager
def publishing(project: ProjectFile, stages: Collection[str]) -> Iterator[Callable[[], None]]:
    """Publish what these stages make, if the project says where to; yields what to call after each of them.

    Raises KnowledgeBaseError and InputError as the module's docstring says, before the block is entered.
    """
    if project.publish_to is None or not _PAID & set(stages):
        yield lambda: None
        return
    from kb_builder.publish.held import require_answers
    from kb_builder.publish.place import open_place
    from kb_builder.publish.sending import Sending
    from kb_builder.publish.writer import hold

    place = open_place(project.publish_to)
    with write_lock(project.run / LOCK, "publish"), hold(place, project.kb, say) as lease:
        require_answers(project.kb, place)
        sending = Sending(project.kb, lease, say)
        try:
            with sending:
                yield sending.stage_done
                _publish(project, sending)
        finally:
            if (left := sending.left()) is not None:
                print(f"warning: {visible(left)}", file=sys.stderr, flush=True)


def _publish(project: ProjectFile, sending: Sending) -> None:
    print("▸ publish", file=sys.stderr, flush=True)
    try:
        with write_lock(project.run / "run.lock", "publish"):
            print(f"  publish: {sending.publish()}", file=sys.stderr, flush=True)
    except Exception as error:
        why = visible(first_line(error))
        print(f"  publish: no version: {why}; `unibind kb publish` makes one", file=sys.stderr, flush=True)
