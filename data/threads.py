"""Threads for products: one place that decides how many each piece of work gets.

NumPy and torch share a product out over threads of their own. For the products of this project that pays
rarely: most are small, and a thread that waits for its partner spins, which keeps another from a core. So
work is shared out over threads of ours, one for each core, and every product runs on the thread that calls
it. Results have the same bits on any number of cores.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from data.environment import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# The number of BLAS threads is global to the process, and only the thread that limits it may restore it.
_limiting = threading.Lock()
_this_thread = threading.local()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Within: every product runs on the thread that calls it. After: the numbers of threads as before.

    Of jobs in several threads that overlap, the first one limits NumPy until it is done; the others neither
    wait for it nor restore a number that is not theirs.
    """
    torch = loaded_torch()
    threads = torch.get_num_threads() if torch else 0
    first = _limiting.acquire(blocking=False)
    try:
        with _controller().limit(limits=1, user_api="blas") if first else nullcontext():
            if torch:
                torch.set_num_threads(1)
            yield
    finally:
        if first:
            _limiting.release()
        if torch:
            torch.set_num_threads(threads)


def parallel_map(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work(item)` for every item, in order, on a thread per core; call it within `one_thread_each`.

    Within the work of another `parallel_map`, whose threads keep the cores busy, and for a single item, the
    calling thread does it.
    """
    todo = list(items)
    if len(todo) < 2 or getattr(_this_thread, "shares", False):
        return [work(item) for item in todo]
    workers = min(cores(), len(todo))
    with ThreadPoolExecutor(workers, thread_name_prefix="spread", initializer=_share) as pool:
        return list(pool.map(work, todo))


def side_by_side(jobs: Iterable[Callable[[], Result]], *, together: bool = True) -> list[Result]:
    """The results of independent jobs, in order: as many at a time as there are cores, one thread each.

    Not `together`: one after the other, each with all threads, as suits jobs of large products.
    """
    if not together:
        return [job() for job in jobs]
    with one_thread_each():
        return parallel_map(lambda job: job(), jobs)


def loaded_torch() -> Any:
    """The module torch where something has loaded it, else None."""
    return sys.modules.get("torch")


@cache
def _controller() -> Any:
    """The controller of the loaded BLAS libraries; cached, because finding them takes milliseconds."""
    return ThreadpoolController()


def _share() -> None:
    """Make a thread one of several that share the cores."""
    _this_thread.shares = True
    torch = loaded_torch()
    if torch:
        torch.set_num_threads(1)
