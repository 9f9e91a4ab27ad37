"""Threads of our own: in order, one BLAS thread each, and everything as it was afterwards."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from data.environment import cores
from data.threads import one_thread_each, parallel_map, side_by_side


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_results_come_in_the_order_of_the_items() -> None:
    """Whatever ends first."""

    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert parallel_map(work, range(20)) == [item * item for item in range(20)]
    assert parallel_map(work, []) == []


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    """It is not swallowed with its thread."""
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 // item, [1, 0])


def test_within_every_blas_has_one_thread_and_after_as_many_as_before() -> None:
    """Also after an error, also for torch, also when it is entered twice."""
    torch_threads = torch.get_num_threads()
    with threadpool_limits(2, user_api="blas"):
        before = _blas_threads()
        torch.set_num_threads(2)
        try:
            with pytest.raises(RuntimeError), one_thread_each(), one_thread_each():
                assert _blas_threads() == {1}
                assert torch.get_num_threads() == 1
                assert parallel_map(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
                raise RuntimeError
            assert torch.get_num_threads() == 2
            assert _blas_threads() == before
        finally:
            torch.set_num_threads(torch_threads)


def test_jobs_that_overlap_leave_the_number_of_threads_as_it_was() -> None:
    """Neither waits for the other, and the one that ends last does not restore what the first had set."""
    before, outlives = _blas_threads(), threading.Event()

    def first() -> None:
        with one_thread_each():
            other.start()
            assert outlives.wait(60)
            assert _blas_threads() == {1}

    def second() -> None:
        with one_thread_each():
            assert _blas_threads() == {1}
            outlives.set()
            job.join(60)

    job, other = threading.Thread(target=first), threading.Thread(target=second)
    job.start()
    job.join(60)
    other.join(60)
    assert outlives.is_set() and not other.is_alive()
    assert _blas_threads() == before


def test_the_work_of_shared_out_work_stays_on_its_thread() -> None:
    """Threads that keep the cores busy already do not start others; the caller may share out again after."""

    def outer(_: int) -> set[int]:
        return set(parallel_map(lambda _: threading.get_ident(), range(8))) | {threading.get_ident()}

    assert [len(found) for found in parallel_map(outer, range(4))] == [1] * 4
    meeting = threading.Barrier(2)
    if cores() > 1:
        parallel_map(lambda _: meeting.wait(10), range(2))  # two at once, or it breaks


def test_jobs_run_side_by_side_with_one_thread_each() -> None:
    """Their results are in order, and torch has as many threads afterwards as before."""
    before = torch.get_num_threads()

    def job(name: str) -> tuple[str, int, set[int]]:
        return name, torch.get_num_threads(), _blas_threads()

    assert side_by_side([partial(job, name) for name in "abc"]) == [(name, 1, {1}) for name in "abc"]
    assert torch.get_num_threads() == before
