"""The engine on a Ray cluster: one worker per slot, each an actor that lives until the engine is closed.

Ray starts the processes, places them and says when one has died. What is ours is what it does not know: a
part may be tried three times, and one that kills its worker each time is left out and named at the end; a
worker that runs other code is refused; a cluster beyond this machine must ask for a token.

The head of the cluster is watched by a connection of our own: Ray ends this process a minute after it has
lost the head, and at once after it has lost its own node, without a word. So another process says it then.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import length_hint
from pathlib import Path
from typing import Any

from data.errors import EngineError, InputError, MissingDependencyError
from data.work import Work
from kb_builder.weights.known import VARIABLE
from pipeline.engines.worker import Done, Failed, Hello, Worker, code_version
from pipeline.loopback import is_loopback
from pipeline.project import RunSection

TRIES = 3  # of one order
_MANY = 1_000_000_000  # orders of which the number is not known
_QUEUED = 2  # orders that a worker has at a time: one at work, one waiting
_LOOK_S = 2.0  # between two looks at the head and the nodes
_HEAD_LOST_S = 15.0  # without an answer of the head
_SAY_S, _GIVE_UP_S = 30.0, 900.0  # without any worker
_ASK_S = 120.0  # for the answers of all nodes
_START = (
    "start one, on its head `ray start --head --node-ip-address=HEAD --port=6379`, on each other machine `ray"
    " start --address=HEAD:6379`, with the same token everywhere (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH);"
    " docs/scale.md has the commands for Slurm and Kubernetes"
)


@dataclass(eq=False)
class _Task:
    """An order, and how often it was tried."""

    order: Any
    tries: int = 0
    words: str = ""  # of the last failure

    @property
    def name(self) -> str:
        """The order's name, for messages."""
        return str(getattr(self.order, "name", self.order))


@dataclass(eq=False)
class _Slot:
    """One worker, and what it was given, in order; `hello` until it has answered."""

    actor: Any
    hello: Any
    host: str = "?"
    given: deque[tuple[Any, _Task]] = field(default_factory=deque)


class _NodeWorker(Worker):
    """A worker that knows its node."""

    def hello(self) -> Hello:
        """Who this is: a machine may have several nodes, and nodes the same name."""
        import ray

        hello = super().hello()
        return replace(hello, host=f"{hello.host} ({ray.util.get_node_ip_address()})")


class RayEngine:
    """Does work on a Ray cluster. It connects with the first order.

    Raises MissingDependencyError where Ray is not installed, and InputError where no cluster is named, or one
    beyond this machine without a token.
    """

    elsewhere = True

    def __init__(self, settings: RunSection) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingDependencyError("[run] engine = \"ray\" needs Ray: pip install '.[ray]'")
        self.address = cluster_address(settings.address)
        self._workers = settings.workers
        self._slots: list[_Slot] = []
        self._most = _MANY  # orders, as far as that is known
        self._quarantined: list[_Task] = []
        self.is_loopback = False  # whether all nodes are on this machine's loopback
        self._connected = False
        self._head_lost = False
        self._witness: subprocess.Popen[bytes] | None = None
        self._looked = self._head_seen = self._worker_seen = 0.0
        self._said = False

    def map(self, work: Work, orders: Iterable[Any]) -> Generator[Any]:
        """The results, as they come.

        Raises EngineError where the cluster is lost, or an order killed its worker three times (after all
        others are done), and InputError with the words of the first error that a user can fix.
        """
        self._most = length_hint(orders, _MANY)
        left = iter(orders)
        first = next(left, None)
        if first is None:
            return
        self.connect()
        import ray

        sent = ray.put(work)
        waiting: deque[_Task] = deque()
        tasks = (_Task(order) for order in chain([first], left))
        self._quarantined = []
        self._worker_seen = time.monotonic()
        try:
            while True:
                self._look()
                self._hand_out(sent, waiting, tasks)
                busy = any(slot.given for slot in self._slots)
                if not busy and not waiting and (upcoming := next(tasks, None)) is None:
                    break
                if not busy and not waiting and upcoming is not None:
                    waiting.append(upcoming)
                yield from self._collect(waiting)
        except BaseException:
            self._dismiss()  # their orders are void
            raise
        if self._quarantined:
            names = "; ".join(f"{task.name}: {task.words}" for task in self._quarantined[:5])
            raise EngineError(
                f"{len(self._quarantined):,} left out, since it failed {TRIES} times on its workers: {names}."
                " All others are made; find the cause there and run the same command again"
            )

    def connect(self) -> None:
        """Join the cluster as its driver. Raises EngineError where that fails, with the likely reasons."""
        if self._connected:
            return
        if not _answers(self.address):
            raise EngineError(f"no cluster answers at {self.address}; {_START}")
        import ray

        host = self.address.rpartition(":")[0]
        # Several nodes on one machine have addresses of their own, and Ray would not find the one to join.
        own = host.startswith("127.") and host != "127.0.0.1"
        here = {"_node_ip_address": host} if own else {}
        try:
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                namespace="unibind",
                **here,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            mode = os.environ.get("RAY_AUTH_MODE")
            token = (
                "this process uses a token: is it the cluster's?"
                if mode == "token"
                else "does the cluster ask for a token? Then set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            )
            raise EngineError(
                f"the cluster at {self.address} does not let this process in ({_first_line(error)}). {token};"
                " this machine must be one of its nodes, with the same versions of Python and Ray"
            ) from error
        self._connected = True
        self._witness = _witness(
            "error: this process was killed, or ended by Ray, which lost its node of the cluster at"
            f" {self.address}. What is made is on disk: start the cluster and run the same command again"
        )
        self._head_seen = time.monotonic()
        # The head may be addressed by loopback and have nodes elsewhere.
        self.is_loopback = all(is_loopback(node["NodeManagerAddress"]) for node in ray.nodes())
        if not self.is_loopback and os.environ.get("RAY_AUTH_MODE") != "token":
            self.close()
            raise InputError(_open(self.address))

    def ask_nodes(self, ask: Callable[[Any], Any], question: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """`ask(question)` on every node: the answers, and why a node has none, by the nodes' addresses."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
        asked = {
            host: ray.remote(ask)
            .options(
                num_cpus=0,
                num_gpus=self._workers.gpus,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(question)
            for host, node in nodes.items()
        }
        answers, silent = {}, {}
        until = time.monotonic() + _ASK_S
        for host, ref in asked.items():
            try:
                answers[host] = ray.get(ref, timeout=max(1.0, until - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                silent[host] = f"no answer within {_ASK_S:.0f} s: is it busy, or has it no GPU to give?"
            except ray.exceptions.RayError as error:
                silent[host] = _last_line(error)
        return answers, silent

    def close(self) -> None:
        """End the workers and leave the cluster."""
        self._dismiss()
        if self._witness is not None:
            self._witness.communicate(b"\n")
            self._witness = None
        if self._connected and not self._head_lost:
            import ray

            ray.shutdown()
        self._connected = False

    def _dismiss(self) -> None:
        if self._slots and not self._head_lost:
            import ray

            for slot in self._slots:
                ray.kill(slot.actor)
        self._slots = []

    def _look(self) -> None:
        """Now and then: whether the head is there, and whether there is room for more workers."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S and self._slots:
            return
        self._looked = now
        if not _answers(self.address):
            if now - self._head_seen > _HEAD_LOST_S:
                self._head_lost = True
                raise EngineError(
                    f"the head of the cluster at {self.address} has not answered for {_HEAD_LOST_S:.0f} s."
                    " What is made is on disk: start the cluster again and run the same command again"
                )
            return
        self._head_seen = now
        self._hire()
        if any(slot.hello is None for slot in self._slots):
            self._worker_seen = now
        elif now - self._worker_seen > _GIVE_UP_S:
            raise EngineError(f"no worker for {_GIVE_UP_S:.0f} s: {self._lack()}")
        elif now - self._worker_seen > _SAY_S and not self._said:
            self._said = True
            print(f"  note: waiting for a worker: {self._lack()}", file=sys.stderr, flush=True)

    def _lack(self) -> str:
        takes = f"{self._workers.cpus} CPUs" + (
            f" and {self._workers.gpus:g} GPUs" if self._workers.gpus else ""
        )
        return (
            f"each takes {takes} ([run.workers]), and the cluster at {self.address} has room for"
            f" {self._room()} of them in all"
        )

    def _room(self) -> int:
        """How many workers the nodes hold."""
        import ray

        rooms = []
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                room = int(has.get("CPU", 0) // self._workers.cpus)
                if self._workers.gpus:
                    room = min(room, int(has.get("GPU", 0) / self._workers.gpus + 1e-9))
                rooms.append(room)
        return sum(rooms)

    def _hire(self) -> None:
        """Start a worker for each free slot of the cluster, but no more than there are orders.

        At least one, which an autoscaler notices.
        """
        import ray

        kind = ray.remote(_NodeWorker)
        variables = {name: os.environ[name] for name in (VARIABLE,) if name in os.environ}
        options = {"num_cpus": self._workers.cpus, "num_gpus": self._workers.gpus}
        about = (self._workers.cpus, self._workers.gpus, variables, str(Path.cwd()))
        while len(self._slots) < max(1, min(self._most, self._room())):
            actor = kind.options(**options).remote(*about)
            self._slots.append(_Slot(actor, actor.hello.remote()))

    def _hand_out(self, sent: Any, waiting: deque[_Task], tasks: Iterator[_Task]) -> None:
        """Give each worker that has answered enough to do; those with the least first."""
        for depth in range(_QUEUED):
            for slot in self._slots:
                if slot.hello is not None or len(slot.given) > depth:
                    continue
                task = waiting.popleft() if waiting else next(tasks, None)
                if task is None:
                    return
                slot.given.append((slot.actor.do.remote(sent, task.order), task))

    def _collect(self, waiting: deque[_Task]) -> Iterator[Any]:
        """Wait a moment for answers; the results among them."""
        import ray

        asked = {slot.hello: slot for slot in self._slots if slot.hello is not None}
        asked |= {slot.given[0][0]: slot for slot in self._slots if slot.given}
        if not asked:  # all workers have died, and the head does not answer
            time.sleep(_LOOK_S / 4)
            return
        ready, others = ray.wait(list(asked), num_returns=1, timeout=_LOOK_S / 2)
        if ready and others:  # take all that are ready: with many workers each wait looks at all of them
            ready += ray.wait(others, num_returns=len(others), timeout=0)[0]
        for ref in ready:
            slot = asked[ref]
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"a worker on {slot.host} failed: {error}") from error
            except ray.exceptions.RayError as error:
                self._bury(slot, waiting, _first_line(error))
                continue
            if isinstance(answer, Hello):
                self._welcome(slot, answer)
                continue
            _, task = slot.given.popleft()
            if isinstance(answer, Done):
                yield answer.result
            else:
                self._failed(slot, task, answer, waiting)

    def _welcome(self, slot: _Slot, hello: Hello) -> None:
        slot.host, slot.hello = hello.host, None
        self._worker_seen = time.monotonic()
        if hello.code != code_version():
            raise EngineError(
                f"{hello.host} runs another version of this program than this machine; install the same one"
                " on every node (`unibind doctor --engine` compares them)"
            )
        if not hello.token and not self.is_loopback:
            raise InputError(
                f"{hello.host} takes work from anyone who reaches it: it was started without"
                " RAY_AUTH_MODE=token; start the cluster again with a token"
            )

    def _failed(self, slot: _Slot, task: _Task, answer: Failed, waiting: deque[_Task]) -> None:
        if answer.kind == "user":
            raise InputError(f"{answer.words} (on {slot.host})")
        if answer.kind == "bug":
            raise RuntimeError(f"{task.name} failed on {slot.host}: {answer.words}\n{answer.trace}")
        self._again(task, f"{answer.words} on {slot.host}", waiting)

    def _bury(self, slot: _Slot, waiting: deque[_Task], words: str) -> None:
        """A worker has died: what it was at is tried again, and what waited behind is not to blame."""
        self._slots.remove(slot)
        self._looked = 0.0  # another may take its place at once
        innocent = list(slot.given)[1:]
        waiting.extendleft(task for _, task in reversed(innocent))
        if slot.given:
            self._again(slot.given[0][1], f"its worker on {slot.host} died ({words})", waiting)

    def _again(self, task: _Task, words: str, waiting: deque[_Task]) -> None:
        task.tries += 1
        task.words = words
        if task.tries < TRIES:
            print(f"  note: {task.name} is tried again: {words}", file=sys.stderr, flush=True)
            waiting.appendleft(task)
        else:
            self._quarantined.append(task)


def cluster_address(given: str | None) -> str:
    """HOST:PORT of the cluster to use: `[run] address`, else RAY_ADDRESS.

    Raises InputError where neither names one, or it names one beyond this machine and no token is asked for.
    """
    address = given or os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise InputError(
            '[run] engine = "ray" names no cluster: set [run] address = "HEAD:6379", or RAY_ADDRESS; where'
            f" there is none, {_START}"
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError(
            f'the cluster {address!r} must be written as HOST:PORT of its head, such as "head:6379", on a'
            " machine that is one of its nodes; a cluster is never started here without being asked for"
        )
    if not is_loopback(host.strip("[]")) and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InputError(_open(address))
    return address


def _open(address: str) -> str:
    return (
        f"the cluster at {address} lets anyone who reaches it run programs, unless it asks for a token: start"
        " it with RAY_AUTH_MODE=token and a token of your own (RAY_AUTH_TOKEN_PATH), and set both here"
    )


def _answers(address: str) -> bool:
    """Whether anything listens at a HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
    except OSError:
        return False
    return True


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _witness(words: str) -> subprocess.Popen[bytes]:
    """A process that says `words` on stderr where this one ends before it has sent it a line."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r line || printf "%s\\n" "$0" >&2', words], stdin=subprocess.PIPE
    )
