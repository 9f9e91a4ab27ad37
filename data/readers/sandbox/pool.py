"""Untrusted files are decoded in processes of their own, which can be ended: a hostile file costs one sample.

`decode` has one file read by an idle decoder process (data/readers/sandbox/worker.py); callers that want
several at once call it from several threads, and there are as many processes as cores. Within
`reading_ahead`, files are sent some at a time and their results come one by one, so that neither side waits
for the other at every file; the one at which a process ended is known all the same.

A file that takes longer than its budget, needs more memory, or crashes its decoder twice is a `SampleError`;
its process is replaced. The bits are those of the reader called in this process. Results come through shared
memory. A process starts in about 0.1 s, imports NumPy and the reader that is asked for, never torch (but for
a cloud saved by torch), and goes when it was idle for half a minute.
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

from data.errors import MissingDependencyError, SampleError, UniBindError
from data.files import stamp
from data.readers.sandbox.budget import WAITS, FileBudget
from data.readers.sandbox.wire import Message, Result, receive, send, take

GRACE_S = 10.0  # beyond the kernel's own limit, before the process is ended from here
START_S = 120.0  # until a process is ready, on a machine that is busy
AHEAD = 16  # files that are sent at once
CRASHES = 2  # of one file, before the file is held to be the reason: a process may be killed by a stranger

_ROOT = Path(__file__).parents[3]
# The decoder gets no other variable: not the API key.
_KEPT_VARIABLES = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"})
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Else glibc gives a picture's memory back to the system after each file, which takes half a millisecond.
_KEEP_MEMORY = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(64 * 2**20))
# A text of its own, so that pipeline/run/code.py counts the module as code of the stages.
_WORKER = "data.readers.sandbox.worker"
_START = (
    "import json, os, sys; sys.path[:] = json.loads(os.environ['UNIBIND_PATH']); "
    f"from {_WORKER} import start; start()"
)


def decode(reader: str, path: Path, options: dict[str, Any], *, what: str) -> Any:
    """What the reader "module:function" makes of a file (a payload, or an array), by a decoder process.

    `what` names the kind of file in errors. Raises SampleError where the file is refused, exceeds the budget
    (`use_budget`) or crashes its decoder, and MissingDependencyError where the reader's library is missing.
    """
    how = {"reader": reader, "options": options, "what": what}
    line: _Channel | None = getattr(_this_thread, "line", None)
    if line is not None:
        return line.decode(how, path, _shared.budget)
    with closing(_Channel(_pool(), ())) as alone:
        return alone.decode(how, path, _shared.budget)


@contextmanager
def reading_ahead(files: Sequence[tuple[str, Path]]) -> Iterator[None]:
    """Within, this thread is going to read these files, (modality, path), in this order and each modality's
    in one way: the next ones are decoded while it works on one. It may read others, too, and leave some."""
    with closing(_Channel(_pool(), files)) as line:
        before = getattr(_this_thread, "line", None)
        _this_thread.line = line
        try:
            yield
        finally:
            _this_thread.line = before


def use_budget(budget: FileBudget) -> None:
    """From now on every file that this process has decoded gets this budget."""
    _shared.budget = budget


def warm_up() -> None:
    """Start a decoder process without waiting for it: it is there when the models are loaded."""
    _pool().warm_up()


def close() -> None:
    """End the decoder processes; the next file starts one."""
    pool, _shared.pool = _shared.pool, None
    if pool is not None:
        pool.close()


class _WorkerEndedError(Exception):
    """The decoder process has ended. `status`: as `Popen.returncode` has it; None where we ended it."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class _DamagedReplyError(Exception):
    """The decoder process says what ours never say: a file took it over."""


class _Worker:
    """One decoder process. Used by one thread at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = ours
        self._memory = _shared_memory()
        self._ready = False
        path = [str(_ROOT), *(str(each) for each in sys.path if str(each) != str(_ROOT))]
        environment = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES}
        environment |= _ONE_THREAD | _KEEP_MEMORY | {"UNIBIND_PATH": json.dumps(path)}
        descriptors = (theirs.fileno(), self._memory)
        # -I -S: no PYTHON… variables, and of the current folder nothing is imported that is not here. Names
        # of files are encoded there as they are here.
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

    def order(self, message: Message, *, within_s: float) -> None:
        """Ask for results. Raises _GoneError where the process has ended."""
        if not self._ready:
            self._await_ready()
        self._connection.settimeout(within_s)
        try:
            send(self._connection, message)
        except OSError:
            raise _WorkerEndedError(self._status()) from None

    def reply(self) -> Message:
        """The next reply. Raises _GoneError where the process ends over it or gives none."""
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
        """End the process, if it has not ended, and let go of what it was given."""
        self._connection.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits for a dead disk: nothing ends it
            self._process.wait(GRACE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        os.close(self._memory)

    def _status(self) -> int:
        """How the process ended that has hung up."""
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
            raise UniBindError(f"a decoder process does not start: {last or self._process.returncode}")
        self._ready = True


class _Pool:
    """As many decoder processes as cores, at most."""

    def __init__(self, size: int) -> None:
        self.places = threading.BoundedSemaphore(size)
        self._too_slow: dict[str, str] = {}  # no file is waited for twice: what was said, by `_key`
        self._idle: list[_Worker] = []  # the one that was last used is used first
        self._lock = threading.Lock()

    def tell_slow(self, how: Message, path: Path) -> str:
        """What is said of a file that took too long, now and whenever it is asked for again unchanged."""
        told = (
            f"{path}: took longer than {how['seconds']:g} s to read; if the file is sound, raise "
            "seconds_per_file in [data]"
        )
        self._too_slow[_key(how, path)] = told
        return told

    def told_slow(self, how: Message, path: Path) -> str | None:
        """What was said of a file that took too long before."""
        return self._too_slow.get(_key(how, path)) if self._too_slow else None

    def take(self) -> tuple[_Worker, bool]:
        """A process, and whether it was started now."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        try:
            return _Worker(), True
        except OSError as error:  # out of processes, of memory, of open files
            raise UniBindError(f"a decoder process does not start: {error.strerror or error}") from error

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
    """What one thread has decoded: its process, and the files that were sent to it and not yet come back."""

    def __init__(self, pool: _Pool, files: Sequence[tuple[str, Path]]) -> None:
        self._pool = pool
        self._files = files
        self._places = {path: place for place, (_, path) in enumerate(files)}
        self._worker: _Worker | None = None
        self._fresh = False
        self._sent: deque[Path] = deque()
        self._how: Message = {}

    def decode(self, how: Message, path: Path, budget: FileBudget) -> Result:
        """See `decode` above."""
        how = {**how, "seconds": budget.seconds, "memory": budget.memory}
        if told := self._pool.told_slow(how, path):
            raise SampleError(told)
        crashes: list[int] = []
        while len(crashes) < CRASHES:
            try:
                worker = self._ordered(how, path, alone=bool(crashes))
                reply = worker.reply()
                outcome = _outcome(worker, reply)
            except _WorkerEndedError as gone:
                was_fresh = self._fresh
                self._end()
                if gone.status in {None, -signal.SIGPROF, -signal.SIGALRM}:
                    raise SampleError(self._pool.tell_slow(how, path)) from None
                if was_fresh or gone.status:  # else it had been idle for so long that it left
                    crashes.append(gone.status or 0)
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
                elif reply.get("then") == "rest":  # it sent no more, for memory's sake
                    self._sent.clear()
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        raise SampleError(
            f"{path}: the decoder crashed on it ({_status_text(crashes[-1])}); export or fetch it again"
        )

    def close(self) -> None:
        """Let go of the process."""
        if self._sent:
            self._end()
        elif self._worker is not None:
            self._pool.give_back(self._worker)
            self._worker = None
            self._pool.places.release()

    def _ordered(self, how: Message, path: Path, *, alone: bool) -> _Worker:
        """A process whose next reply is about this file."""
        if self._sent and (self._sent[0] != path or self._how != how):
            self._end()
            self._files, self._places = (), {}  # it is not read in the way that was said
        if self._worker is None:
            self._pool.places.acquire()
            try:
                self._worker, self._fresh = self._pool.take()
            except BaseException:
                self._pool.places.release()
                raise
        if not self._sent:
            paths = [path] if alone else [path, *self._following(how, path)]
            self._how = how
            self._sent.extend(paths)
            order = {**how, "paths": [str(each) for each in paths]}
            if not all(each.is_absolute() for each in paths):
                order["folder"] = str(Path.cwd())
            self._worker.order(order, within_s=how["seconds"] * WAITS + GRACE_S)
        return self._worker

    def _following(self, how: Message, path: Path) -> list[Path]:
        """What to send behind a file: the next ones of its modality."""
        place = self._places.get(path)
        if place is None:
            return []
        modality = self._files[place][0]
        same = takewhile(lambda file: file[0] == modality, self._files[place + 1 : place + AHEAD])
        return list(takewhile(lambda each: not self._pool.told_slow(how, each), (each for _, each in same)))

    def _end(self) -> None:
        self._sent.clear()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            self._pool.places.release()
            worker.end()


def _key(how: Message, path: Path) -> str:
    """A file as it is now, and what is asked of it."""
    return json.dumps([how, str(path), stamp(path)])


def _outcome(worker: _Worker, reply: Message) -> Result | SampleError | MissingDependencyError:
    """What a reply says. Raises _DamagedError for one that is malformed."""
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
    """A file descriptor of memory that a process started with it shares; on disk where there is no such."""
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
            _shared.pool = _Pool(_cores())
        return _shared.pool


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _forget() -> None:
    """In a forked child: the processes are its parent's."""
    _shared.pool, _shared.lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
