"""Worker: a process of an engine, on any machine, that makes one part after the other.

This module imports nothing of an engine, and no torch: a worker that is started answers at once.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from data.environment import CORES
from data.errors import UniBindError
from data.files import hash_file, hash_json
from data.work import Work

ROOT = Path(__file__).parents[2]
_PACKAGES = ("data", "kb_builder", "trainer", "pipeline")


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself when it has started."""

    host: str
    pid: int
    code: str  # `code_version`
    token: bool  # its node was started with token authentication


@dataclass(frozen=True)
class Done:
    """The result of an order, and the seconds that it took."""

    result: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Why an order has no result, in words that travel: exceptions may not be picklable.

    `user`: an error that a user can fix; `passing`: a full disk, a lack of memory, or a file system that did
    not answer, which another try may fix; `bug`: anything else.
    """

    kind: Literal["user", "passing", "bug"]
    words: str
    trace: str


class Worker:
    """Carries out orders, one at a time."""

    def __init__(self, cpus: int, gpus: float, variables: Mapping[str, str], folder: str) -> None:
        go_to(folder)
        os.environ.update(variables)
        # Read by torch, which is not loaded yet, and by processes that decode.
        os.environ[CORES] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(cpus)
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # those of the machine are not ours

    def hello(self) -> Hello:
        """Who this is."""
        token = os.environ.get("RAY_AUTH_MODE") == "token"
        return Hello(socket.gethostname(), os.getpid(), code_version(), token)

    def do(self, work: Work, order: Any) -> Done | Failed:
        """Carry out one order."""
        started = time.perf_counter()
        try:
            (result,) = work([order])
        except UniBindError as error:
            return Failed("user", str(error), "")
        except (OSError, MemoryError) as error:
            return Failed("passing", f"{type(error).__name__}: {error}", traceback.format_exc())
        except Exception as error:
            return Failed("bug", f"{type(error).__name__}: {error}", traceback.format_exc())
        return Done(result, time.perf_counter() - started)


def go_to(folder: str) -> None:
    """Make relative names of models, as in `clip:FOLDER`, mean what they mean where the run was started."""
    with suppress(OSError):  # it need not be there: names may be absolute
        os.chdir(folder)


@cache
def code_version() -> str:
    """A hash of this program's code: equal on two machines if they run the same."""
    files = sorted(
        path for name in _PACKAGES for kind in ("py", "toml") for path in (ROOT / name).rglob(f"*.{kind}")
    )
    return hash_json([(path.relative_to(ROOT).as_posix(), hash_file(path)) for path in files])
