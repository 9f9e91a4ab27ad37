"""Stop a stage between two commits when its flow run is cancelled or suspended on Prefect's page.

Both stop it as Ctrl-C does: calls in flight are awaited and recorded, and the next run continues from there.
Without this module a suspended run would first end its task, which may take hours. And a cancelled one would
lose what is in flight, or not notice: Prefect's signal raises an exception wherever Python is. asyncio keeps
it to the task or callback that it hits; or it cancels every task at once, those that await answers too.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prefect.utilities.engine
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

POLL_S = 0.2


class SuspendedError(Exception):
    """The flow run was suspended, and the stage has stopped."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the block be stopped: by SuspendedError soon after its flow run is suspended, and by cancelling.

    Only in the main thread, where the flows of runners and workers run. Elsewhere, and if Prefect's inside
    has changed, it is Prefect that stops it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    cancelled, suspended = threading.Event(), threading.Event()
    # A process that was started in the background ignores SIGINT, and asyncio handles it only if Python does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _interrupted_by_prefect(cancelled), _interrupted_by_suspension(suspended):
            yield
            if cancelled.is_set() or suspended.is_set():
                time.sleep(0.01)  # the interrupt may have come just after the block: here it is raised
    except (KeyboardInterrupt, Exception):  # also an error of what was stopped: it shows again if it is one
        if not cancelled.is_set() and not suspended.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if cancelled.is_set():
        raise TerminationSignal(signal=signal.SIGTERM)
    if suspended.is_set():
        raise SuspendedError


@contextmanager
def _interrupted_by_prefect(cancelled: threading.Event) -> Iterator[None]:
    """Make Ctrl-C of Prefect's signal. Prefect is answered that its own handler is there, which it asks."""
    engine: Any = prefect.utilities.engine
    theirs = getattr(engine, "_prefect_sigterm_handler", None)
    if theirs is None or signal.getsignal(signal.SIGTERM) is not theirs:
        yield
        return

    def interrupt(*_: object) -> None:
        cancelled.set()
        signal.raise_signal(signal.SIGINT)

    def install(handler: Any) -> None:
        with engine._prefect_sigterm_bridge_lock:
            signal.signal(signal.SIGTERM, handler)
            engine._prefect_sigterm_handler = handler

    install(interrupt)
    try:
        yield
    finally:
        install(theirs)


@contextmanager
def _interrupted_by_suspension(suspended: threading.Event) -> Iterator[None]:
    request = _request()
    if request is None:
        yield
        return
    ended, main = threading.Event(), threading.get_ident()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if request.is_requested():
                suspended.set()
                signal.pthread_kill(main, signal.SIGINT)  # a real signal: it wakes an event loop too
                return

    watcher = threading.Thread(target=watch, name="suspension", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def end_if_suspended() -> None:
    """Raise Prefect's own signal that ends a suspended flow run, which stays suspended."""
    request = _request()
    if request is not None:
        request.raise_if_requested()


def _request() -> Any:
    """Prefect's note in the flow run's context, which its observer sets; None where there is none."""
    context = FlowRunContext.get()
    return None if context is None else getattr(context, "flow_run_suspension_request", None)
