"""The worker process: decodes one untrusted file after the other, within limits enforced by the kernel.

It is started by `data.readers.sandbox.pool` and holds nothing worth stealing: no API key, no model, no open
file except its socket and the shared memory. Time: the kernel ends the process by SIGPROF (processor time) or
SIGALRM (wall-clock time), even if a decoder never returns to Python or the parent process is gone. Memory:
allocations beyond the limit on private memory fail, which the decoder sees as an out-of-memory error.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import MissingDependencyError, SampleError
from data.readers.lookup import find_function
from data.readers.sandbox.budget import WAITS, format_bytes
from data.readers.sandbox.wire import Message, put, receive, send
from data.readers.untrusted import decoding

IDLE_S = 30.0  # then it exits; the next file gets a new worker
KEPT_BYTES = 16 * 2**20  # of shared memory kept between two files
GROWN_BYTES = 512 * 2**20  # growth (caches and leaks of libraries) after which it exits, too

_PAGE = resource.getpagesize()


def start() -> None:
    """Entry point; the two arguments are the descriptors of the socket and the shared memory."""
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))


def main(connection: socket.socket, memory: int) -> None:
    """Answer orders until the other side hangs up or none comes for `IDLE_S`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    for ending in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(ending, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # if memory runs out anyway, the OOM killer should choose this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    send(connection, {"ready": os.getpid()})
    # From here on output of decoders goes nowhere: text from untrusted files must not reach the terminal.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    began = _data_bytes()
    connection.settimeout(IDLE_S)
    while True:
        try:
            order = receive(connection)
        except TimeoutError:
            return
        if order is None:
            return
        os.ftruncate(memory, min(os.fstat(memory).st_size, KEPT_BYTES))
        if "folder" in order:
            os.chdir(order["folder"])  # the parent may have changed its folder since it started this worker
        laid = 0
        for path in order["paths"]:
            reply, laid, fit = answer(order, Path(path), memory, laid)
            if not fit or _data_bytes() > began + GROWN_BYTES:
                send(connection, {**reply, "then": "gone"})
                return
            send(connection, reply if laid < KEPT_BYTES else {**reply, "then": "rest"})
            if laid >= KEPT_BYTES:
                break


def answer(order: Message, path: Path, memory: int, laid: int) -> tuple[Message, int, bool]:
    """Decode one file, and take the order's step with it. Returns (the reply, the end offset of shared memory
    in use, whether this process can decode more files). `laid`: the end offset before."""
    budget = float(order["seconds"]), int(order["memory"])
    try:
        reader = find_function(order["reader"])
        step = find_function(order["step"]) if order.get("step") else None
        with decoding(path, str(order["what"])):
            with limits(*budget):
                result = reader(path, **order["options"])
                if step is None:
                    reply, laid = put(result, memory, at=laid)
            if step is not None:  # with a budget of its own: what was decoded counts no longer
                with limits(*budget):
                    reply, laid = put(step(result, **order["step_options"]), memory, at=laid)
            return {"result": reply}, laid, True
    except (MissingDependencyError, ImportError) as error:
        return {"missing": str(error)}, laid, True
    except SampleError as error:
        if not _is_memory(error):
            return {"error": str(error)}, laid, True
    # The limit is lifted again, so there is memory for the message.
    most = format_bytes(int(order["memory"]))
    message = (
        f"{path}: needed more than {most} of memory to read; reduce it, or raise memory_per_file in [data]"
    )
    return {"error": message}, laid, False


@contextmanager
def limits(seconds: float, memory: int) -> Iterator[None]:
    """Within the block, the kernel ends this process after `seconds` and lets it grow by `memory` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _data_bytes() + memory
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WAITS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Private writable memory in use, in bytes; 0 where the system does not report it."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  (a tenth of the time, before every file)
            return int(file.read().split()[5]) * _PAGE
    except OSError:
        return 0


def _is_memory(error: BaseException | None) -> bool:
    """Whether an error, or its cause, is a failed allocation (a RuntimeError in torch)."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
