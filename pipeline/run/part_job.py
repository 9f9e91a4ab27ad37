"""Part jobs: `unibind encode --part i/n` makes one share of the parts of a stage, and completes nothing.

For arrays of jobs (Slurm, Kubernetes) that share a file system but no engine. Each job surveys the store,
makes the parts of its share that are not there, and leaves them uncommitted. A later `unibind encode`
recognises them, makes what is missing, and commits. Part jobs share the lock of the run: they may
run at the same time, but no stage may run meanwhile, and no part job while a stage runs.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from data.errors import InputError
from data.lock import shared_lock
from data.readers import use_budget
from data.show import visible
from kb_builder.encode.spread import PartShare, Spread
from pipeline.project import ProjectFile
from pipeline.run.jobs import encode_all, find_stage
from pipeline.run.runner import require_needs, timed
from pipeline.run.sealing import unseal_outputs
from pipeline.run.stale import require_current_before, why_stale

_STAGE = "encode"
_MOST_SHARES = 100_000


def parse_share(text: str) -> PartShare:
    """A share written as "3/64": the third of 64. Raises InputError for anything else."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of <= _MOST_SHARES:
        raise InputError(
            f"--part {text}: write i/n, such as 3/64 for the third of 64 shares; i counts from 1 to n"
        )
    return PartShare(number, of)


def make_share(project: ProjectFile, share: PartShare) -> dict[str, Any] | None:
    """Make the parts of a share; returns its counts, or None where the stage is finished already.

    Raises KnowledgeBaseError where a stage before has not run, or a stage runs at the same time, and
    InputError where one before is stale.
    """
    stage = find_stage(_STAGE)
    require_current_before(project, _STAGE)
    require_needs(project, stage)
    if why_stale(project, _STAGE) is None:
        return None
    use_budget(project.data.budget)
    with shared_lock(project.run / "run.lock", "part jobs (`unibind encode --part`)"):
        spread = Spread(share=share, budget=project.data.budget)
        counts, seconds = timed(
            lambda project: encode_all(
                project, spread, before_controls=lambda: unseal_outputs(project, stage)
            ),
            project,
        )
    return {"seconds": seconds, **counts}


def tell_share(share: PartShare, counts: dict[str, Any] | None) -> None:
    """Say on stderr what a part job did."""
    if counts is None:
        print(f"  {_STAGE}: finished already; share {share} has nothing to do", file=sys.stderr, flush=True)
        return
    encoded = counts["texts"]["encoded"] + counts["samples"]["encoded"]
    print(
        visible(
            f"  {_STAGE}: share {share} is made ({encoded:,} contents encoded, {counts['seconds']:.1f} s);"
            " when all shares are, run `unibind encode`"
        ),
        file=sys.stderr,
        flush=True,
    )
