"""Worker pool: decodes untrusted files in processes that can be killed, so a hostile file costs one sample.

`decode` sends one file to an idle worker process (data/readers/sandbox/worker.py). For several at once, call
it from several threads; there are at most as many workers as cores. Within `reading_ahead`, files are sent in
batches and results come back one by one, so that neither side waits for the other at every file; replies come
in order, so the file at which a worker ended is still known.

A file that exceeds its time or memory budget, or crashes its worker twice, raises `SampleError`; the worker
is replaced. The result has the same bits as the reader called in this process, and comes through shared
memory. A worker starts in about 0.1 s, imports NumPy and the reader it needs, never torch (except for a cloud
saved by torch), and exits after half a minute without work.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.environment import KEEP_MEMORY, ONE_THREAD, cores
from data.errors import MissingDependencyError, SampleError, UniBindError
from data.files import stamp
from data.readers.sandbox.budget import WAITS, FileBudget
from data.readers.sandbox.wire import Message, Result, receive, send, take

GRACE_S = 10.0  # beyond the kernel's own limit, before this process kills the worker
START_S = 120.0  # until a worker is ready, on a busy machine
AHEAD = 16  # files sent at once
CRASHES = 2  # on one file before the file is blamed: another program may have killed the first worker

_ROOT = Path(__file__).parents[3]
# The worker gets no other environment variable: not the API key.
_KEPT_VARIABLES = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"})
# A separate string, so that pipeline/run/code.py finds the module and counts it as code of the stages.
_WORKER = "data.readers.sandbox.worker"
_START = (
    "import json, os, sys; sys.path[:] = json.loads(os.environ['UNIBIND_PATH']); "
    f"from {_WORKER} import start; start()"
)


def decode(
    reader: str,
    path: Path,
    options: dict[str, Any],
    *,
    what: str,
    step: str | None = None,
    step_options: dict[str, Any] | None = None,
) -> Any:
    """The result of the reader "module:function" for a file (a payload or an array), from a worker process.

    `what`: the kind of file, for error messages. `step`: a function "module:function" that the worker calls
    with that result and `step_options`; its result (a payload, an array or a list of arrays) comes back in
    its place. Raises SampleError where the file is refused, exceeds the budget (`use_budget`; reading and
    the step have one each) or crashes its worker, and MissingDependencyError where a library is missing.
    """
    how = {"reader": reader, "options": options, "what": what}
    if step is not None:
        how |= {"step": step, "step_options": step_options or {}}
    channel: _Channel | None = getattr(_this_thread, "channel", None)
    if channel is not None:
        return channel.decode(how, path, _shared.budget)
    with closing(_Channel(_pool(), ())) as single:
        return single.decode(how, path, _shared.budget)


@contextmanager
def reading_ahead(files: Sequence[tuple[str, Path]]) -> Iterator[None]:
    """Decode ahead: within the block, the next of these files (modality, path) are decoded while this thread
    works on one. It should read them in this order, all of a modality by the same reader and options; reading
    others, or skipping some, is allowed."""
    with closing(_Channel(_pool(), files)) as channel:
        before = getattr(_this_thread, "channel", None)
        _this_thread.channel = channel
        try:
            yield
        finally:
            _this_thread.channel = before


def use_budget(budget: FileBudget) -> None:
    """Set the budget of every file that this process decodes from now on."""
    _shared.budget = budget


def warm_up() -> None:
    """Start a worker process without waiting for it: it is ready when the models are loaded."""
    _pool().warm_up()


def close() -> None:
    """End the worker processes; the next file starts a new one."""
    pool, _shared.pool = _shared.pool, None
    if pool is not None:
        pool.close()


class _WorkerEndedError(Exception):
    """The worker process has ended. `status`: as in `Popen.returncode`; None where we killed it."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class _DamagedReplyError(Exception):
    """A reply that no intact worker sends: a file has taken control of the worker."""


class _Worker:
    """One worker process. Used by one thread at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = ours
        self._memory = _shared_memory()
        self._ready = False
        path = [str(_ROOT), *(str(each) for each in sys.path if str(each) != str(_ROOT))]
        environment = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES}
        environment |= ONE_THREAD | KEEP_MEMORY | {"UNIBIND_PATH": json.dumps(path)}
        descriptors = (theirs.fileno(), self._memory)
        # -I -S: ignore PYTHON… variables, and import nothing from the current folder. The UTF-8 mode is
        # passed on, so that file names are encoded as in this process.
        flags = ("-I", "-S", "-W", "ignore", "-X", f"utf8={sys.flags.utf8_mode}")
        try:
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", _START, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=descriptors,
            )
        except BaseException:
            ours.close()
            os.close(self._memory)
            raise
        finally:
            theirs.close()

    def send_order(self, message: Message, *, within_s: float) -> None:
        """Request results. Raises _WorkerEndedError where the process has ended."""
        if not self._ready:
            self._await_ready()
        self._connection.settimeout(within_s)
        try:
            send(self._connection, message)
        except OSError:
            raise _WorkerEndedError(self._status()) from None

    def reply(self) -> Message:
        """The next reply. Raises _WorkerEndedError where the process ends or times out."""
        try:
            reply = receive(self._connection)
        except TimeoutError:
            raise _WorkerEndedError(None) from None
        except ValueError as error:
            raise _DamagedReplyError(error) from None
        if reply is None:
            raise _WorkerEndedError(self._status())
        return reply

    def result(self, reply: Message) -> Result:
        return take(reply, self._memory)

    def end(self) -> None:
        """Kill the process if it still runs, and release its socket and memory."""
        self._connection.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # blocked by a dead disk, it cannot be killed
            self._process.wait(GRACE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        os.close(self._memory)

    def _status(self) -> int:
        """The exit status of a process that closed its connection."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE_S)
        self._process.kill()
        return self._process.wait()

    def _await_ready(self) -> None:
        self._connection.settimeout(START_S)
        try:
            started = receive(self._connection)
        except (OSError, ValueError):
            started = None
        if started is None:
            self._process.kill()
            _, said = self._process.communicate()
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise UniBindError(f"cannot start a decoder process: {last or self._process.returncode}")
        self._ready = True


class _Pool:
    """At most as many worker processes as cores."""

    def __init__(self, size: int) -> None:
        self.slots = threading.BoundedSemaphore(size)
        self._too_slow: dict[str, str] = {}  # messages by `_key`: no slow file is tried twice
        self._idle: list[_Worker] = []  # a stack: the last one used is used first
        self._lock = threading.Lock()

    def record_slow(self, how: Message, path: Path) -> str:
        """Remember that a file took too long. Returns the message, for now and for every later request."""
        message = (
            f"{path}: took longer than {how['seconds']:g} s to read; if the file is sound, raise "
            "seconds_per_file in [data]"
        )
        self._too_slow[_key(how, path)] = message
        return message

    def slow_message(self, how: Message, path: Path) -> str | None:
        """The message about a file that took too long before and has not changed; None for others."""
        return self._too_slow.get(_key(how, path)) if self._too_slow else None

    def take(self) -> tuple[_Worker, bool]:
        """An idle worker, or a new one; and whether it is new."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        try:
            return _Worker(), True
        except OSError as error:  # out of processes, of memory, of open files
            raise UniBindError(f"cannot start a decoder process: {error.strerror or error}") from error

    def give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def warm_up(self) -> None:
        with self._lock:
            if not self._idle:
                self._idle.append(_Worker())

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()


class _Channel:
    """One thread's connection to a worker: the process, and the files sent to it without a reply so far."""

    def __init__(self, pool: _Pool, files: Sequence[tuple[str, Path]]) -> None:
        self._pool = pool
        self._files = files
        self._places = {path: place for place, (_, path) in enumerate(files)}
        self._worker: _Worker | None = None
        self._fresh = False
        self._sent: deque[Path] = deque()  # without a reply so far
        self._how: Message = {}

    def decode(self, how: Message, path: Path, budget: FileBudget) -> Result:
        """See `decode` above."""
        how = {**how, "seconds": budget.seconds, "memory": budget.memory}
        if message := self._pool.slow_message(how, path):
            raise SampleError(message)
        crashes: list[int] = []
        while len(crashes) < CRASHES:
            try:
                worker = self._worker_for(how, path, alone=bool(crashes))
                reply = worker.reply()
                outcome = _outcome(worker, reply)
            except _WorkerEndedError as ended:
                was_fresh = self._fresh
                self._end()
                if ended.status in {None, -signal.SIGPROF, -signal.SIGALRM}:
                    raise SampleError(self._pool.record_slow(how, path)) from None
                if was_fresh or ended.status:  # else the idle worker had exited just before
                    crashes.append(ended.status or 0)
            except _DamagedReplyError as error:
                self._end()
                raise SampleError(
                    f"{path}: damaged its decoder ({error}); export or fetch it again"
                ) from None
            except BaseException:
                self._end()
                raise
            else:
                self._sent.popleft()
                self._fresh = False
                if reply.get("then") == "gone":
                    self._end()
                elif (
                    reply.get("then") == "rest"
                ):  # the worker stopped to limit its memory; send the remaining files again
                    self._sent.clear()
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        raise SampleError(
            f"{path}: the decoder crashed on it ({_status_text(crashes[-1])}); export or fetch it again"
        )

    def close(self) -> None:
        """Return the worker to the pool, or end it if it still has files."""
        if self._sent:
            self._end()
        elif self._worker is not None:
            self._pool.give_back(self._worker)
            self._worker = None
            self._pool.slots.release()

    def _worker_for(self, how: Message, path: Path, *, alone: bool) -> _Worker:
        """A worker whose next reply is about this file."""
        if self._sent and (self._sent[0] != path or self._how != how):
            self._end()
            self._files, self._places = (), {}  # not the announced order or options: stop decoding ahead
        if self._worker is None:
            self._pool.slots.acquire()
            try:
                self._worker, self._fresh = self._pool.take()
            except BaseException:
                self._pool.slots.release()
                raise
        if not self._sent:
            paths = [path] if alone else [path, *self._following(how, path)]
            self._how = how
            self._sent.extend(paths)
            order = {**how, "paths": [str(each) for each in paths]}
            if not all(each.is_absolute() for each in paths):
                order["folder"] = str(Path.cwd())
            self._worker.send_order(order, within_s=how["seconds"] * WAITS + GRACE_S)
        return self._worker

    def _following(self, how: Message, path: Path) -> list[Path]:
        """The files to send along with a file: the next ones of its modality."""
        place = self._places.get(path)
        if place is None:
            return []
        modality = self._files[place][0]
        same = takewhile(lambda file: file[0] == modality, self._files[place + 1 : place + AHEAD])
        return list(
            takewhile(lambda each: not self._pool.slow_message(how, each), (each for _, each in same))
        )

    def _end(self) -> None:
        self._sent.clear()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            self._pool.slots.release()
            worker.end()


def _key(how: Message, path: Path) -> str:
    """Identifies a request: reader, options, budget, path and present state of the file."""
    return json.dumps([how, str(path), stamp(path)])


def _outcome(worker: _Worker, reply: Message) -> Result | SampleError | MissingDependencyError:
    """The result or error in a reply. Raises _DamagedReplyError for a malformed one."""
    try:
        if "result" in reply:
            return worker.result(reply["result"])
        if "missing" in reply:
            return MissingDependencyError(str(reply["missing"]))
        return SampleError(str(reply["error"]))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise _DamagedReplyError(error) from None


def _status_text(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _shared_memory() -> int:
    """A descriptor of memory to share with a child process; a temporary file where memfd does not exist."""
    if sys.platform == "linux":
        return os.memfd_create("unibind", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_this_thread = threading.local()


@dataclass
class _Shared:
    budget: FileBudget = field(default_factory=FileBudget)
    pool: _Pool | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_shared = _Shared()


def _pool() -> _Pool:
    with _shared.lock:
        if _shared.pool is None:
            _shared.pool = _Pool(cores())
        return _shared.pool


def _forget() -> None:
    """In a forked child: drop the pool, whose processes belong to the parent."""
    _shared.pool, _shared.lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
