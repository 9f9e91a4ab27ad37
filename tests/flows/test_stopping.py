"""A stage stops soon after its flow run is suspended, and whenever it is cancelled."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm, is_prefect_sigterm_handler_installed

from flows import stopping
from flows.stopping import SuspendedError, end_if_suspended, stoppable


class _Request:
    """Prefect's note that a run is suspended, as far as it is used."""

    def __init__(self) -> None:
        self.wanted = threading.Event()

    def is_requested(self) -> bool:
        return self.wanted.is_set()

    def raise_if_requested(self) -> None:
        if self.wanted.is_set():
            raise StopIteration


@pytest.fixture
def request_made(monkeypatch: pytest.MonkeyPatch) -> _Request:
    """A request in the context of a flow run."""
    made = _Request()
    monkeypatch.setattr(stopping, "_request", lambda: made)
    return made


def test_work_in_an_event_loop_is_cancelled_and_may_finish_what_it_must(request_made: _Request) -> None:
    """As by Ctrl-C: tasks are cancelled, their `finally` blocks run."""
    kept: list[str] = []

    async def work() -> None:
        try:
            request_made.wanted.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            kept.append("what was in flight")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SuspendedError), stoppable():
        asyncio.run(work())
    assert kept == ["what was in flight"]
    assert signal.getsignal(signal.SIGINT) is before


def test_work_without_an_event_loop_is_interrupted(request_made: _Request) -> None:
    """In the middle of Python code."""
    deadline = time.monotonic() + 60
    with pytest.raises(SuspendedError), stoppable():
        request_made.wanted.set()
        while time.monotonic() < deadline:
            pass


def test_a_real_interrupt_stays_one(request_made: _Request) -> None:
    """Ctrl-C is not mistaken for a suspension."""
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGINT)


def test_without_a_request_the_block_ends_as_it_would(request_made: _Request) -> None:
    """Its value and its errors are its own."""
    with stoppable():
        pass
    with pytest.raises(ZeroDivisionError), stoppable():
        raise ZeroDivisionError


def test_in_another_thread_the_block_is_left_alone(request_made: _Request) -> None:
    """An interrupt would hit the main thread, which may do something else."""
    request_made.wanted.set()
    ended: list[Any] = []

    def work() -> None:
        with stoppable():
            time.sleep(3 * stopping.POLL_S)
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


def test_outside_a_flow_run_nothing_is_watched() -> None:
    """And nothing ends."""
    with stoppable():
        pass
    end_if_suspended()


def test_cancelling_stops_the_main_task_and_awaits_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever task Prefect's signal hits, it is the main one that is cancelled, and no other."""
    kept: list[str] = []

    async def call() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        kept.append("an answer")

    async def work() -> None:
        in_flight = asyncio.create_task(call())
        try:
            await asyncio.sleep(60)
        finally:
            await in_flight

    with _prefect_cancels(monkeypatch), stoppable():
        asyncio.run(work())
    assert kept == ["an answer"]


def test_cancelling_stops_work_that_is_not_asynchronous_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the work ends before it notices."""
    with _prefect_cancels(monkeypatch), stoppable():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    with _prefect_cancels(monkeypatch), stoppable(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)


def test_prefect_finds_its_own_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks before it says that a run is cancelled on purpose; afterwards its handler is back."""
    with capture_sigterm():
        theirs = signal.getsignal(signal.SIGTERM)
        with stoppable():
            assert is_prefect_sigterm_handler_installed()
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert is_prefect_sigterm_handler_installed()


def test_a_cancelled_run_is_not_taken_for_a_suspended_one(
    request_made: _Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If both happen, the cancelling counts."""
    with _prefect_cancels(monkeypatch), stoppable():
        request_made.wanted.set()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)


@contextmanager
def _prefect_cancels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a flow run that was cancelled on purpose: the block must end by Prefect's signal."""
    monkeypatch.setattr("prefect._internal.control_listener.get_intent", lambda: "cancel")
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(TerminationSignal), capture_sigterm():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
