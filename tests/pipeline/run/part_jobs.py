"""Part jobs in processes of their own, forked from one that has the libraries loaded."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from bench.torture.ground import Running, start
from kb_builder.encode import make
from tests.planted import register_encoder


def job(project: Path, share: str, streams: Path, *, dies_at: int = 0) -> Running:
    """`unibind encode --part SHARE`, which is killed while it writes its file number `dies_at`."""
    arguments = ("encode", "--project", str(project), "--part", share)
    return start(
        project.parent, *arguments, streams=streams, before=partial(_prepare, dies_at), environment=os.environ
    )


def _prepare(dies_at: int) -> None:
    register_encoder()
    left, write = dies_at, make.write_shard

    def write_or_die(path: Path, **rest: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            path.with_name(".part-00000.parquet.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, **rest)

    make.write_shard = write_or_die
