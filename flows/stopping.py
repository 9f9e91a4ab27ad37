"""Stop a stage between two commits when its flow run is cancelled or suspended on Prefect's page.

Both stop it as Ctrl-C does: calls in flight are awaited and recorded, and the next run continues from there.
Without this module, a suspended run would first end its task, which may take hours; and a cancelled one might
not notice: Prefect's signal raises an exception wherever Python is, and asyncio keeps any but Ctrl-C's to the
task or callback that it hits. Such a run continues until it is killed 30 seconds later.
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


class _Cancelled(TerminationSignal, KeyboardInterrupt):
    """Prefect's signal, which asyncio lets through as it does Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the block be stopped: by SuspendedError soon after its flow run is suspended, and by cancelling.

    Only in the main thread, where the flows of runners and workers run. Elsewhere, and if Prefect's inside
    has changed, it is Prefect that stops it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _cancellable(), _suspendable():
        yield


@contextmanager
def _cancellable() -> Iterator[None]:
    engine: Any = prefect.utilities.engine
    if getattr(engine, "TerminationSignal", None) is not TerminationSignal:
        yield
        return
    engine.TerminationSignal = _Cancelled  # what the handler of the signal raises
    try:
        yield
    finally:
        engine.TerminationSignal = TerminationSignal


@contextmanager
def _suspendable() -> Iterator[None]:
    request = _request()
    if request is None:
        yield
        return
    ended, struck = threading.Event(), threading.Event()
    main = threading.get_ident()

    def watch() -> None:
        while not ended.wait(POLL_S):
            if request.is_requested():
                struck.set()
                signal.pthread_kill(main, signal.SIGINT)  # a real signal: it wakes an event loop too
                return

    # A process that was started in the background ignores SIGINT, and asyncio handles it only if Python does.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=watch, name="suspension", daemon=True)
    watcher.start()
    try:
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            if struck.is_set():
                time.sleep(0.01)  # the interrupt may have come just after the block: here it is raised
    except KeyboardInterrupt as stop:
        if isinstance(stop, TerminationSignal) or not struck.is_set():
            raise
        raise SuspendedError from None
    finally:
        signal.signal(signal.SIGINT, before)


def end_if_suspended() -> None:
    """Raise Prefect's own signal that ends a suspended flow run, which stays suspended."""
    request = _request()
    if request is not None:
        request.raise_if_requested()


def _request() -> Any:
    """Prefect's note in the flow run's context, which its observer sets; None where there is none."""
    context = FlowRunContext.get()
    return None if context is None else getattr(context, "flow_run_suspension_request", None)
