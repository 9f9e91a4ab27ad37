"""Probe: what each node of an engine sees, for `unibind doctor --engine`. `answer` runs there."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import UniBindError
from kb_builder.encode.embed import encoder_names, load_known
from kb_builder.encode.hardware import hardware_class
from kb_builder.encoders import FACTORIES, Loader
from pipeline.check import Check
from pipeline.engines.worker import code_version, go_to
from pipeline.project import ProjectFile

_FREE_BYTES = 10 * 2**30
_CLOCK_S = 5.0


@dataclass(frozen=True)
class NodeQuestion:
    """What a node is asked."""

    folder: Path  # of the run, which every node must see
    note: str  # the name of a file in it
    word: str  # its content
    encoders: tuple[str, ...]
    device: str
    cwd: str
    families: Mapping[str, str | Loader]


@dataclass(frozen=True)
class Answer:
    """What a node sees; an empty `store` means that it reads and writes the run's folder."""

    host: str
    code: str
    token: bool
    store: str
    wrote: str  # the name of the file that it wrote
    free: int  # bytes
    clock: float  # seconds since 1970
    hardware: str
    identities: dict[str, str] = field(default_factory=dict)  # of the encoders, or why there is none


def answer(question: NodeQuestion) -> Answer:
    """Look around on this node."""
    clock = time.time()
    go_to(question.cwd)
    wrote = f"{question.note}.{secrets.token_hex(4)}"
    store = _try_store(question, wrote)
    identities = {}
    for name in question.encoders:
        try:
            identities[name] = load_known(name, question.device, question.families).identity
        except UniBindError as error:
            identities[name] = f"none: {error}"
    return Answer(
        host=socket.gethostname(),
        code=code_version(),
        token=os.environ.get("RAY_AUTH_MODE") == "token",
        store=store,
        wrote=wrote,
        free=shutil.disk_usage(question.folder if not store else Path.cwd()).free,
        clock=clock,
        hardware=hardware_class(question.encoders[0], question.device),
        identities=identities,
    )


def _try_store(question: NodeQuestion, wrote: str) -> str:
    try:
        if (question.folder / question.note).read_text(encoding="utf-8") != question.word:
            return f"{question.folder} holds other files there than here"
        (question.folder / wrote).write_text(question.word, encoding="utf-8")
    except OSError as error:
        return f"{question.folder}: {error.strerror}"
    return ""


def examine(project: ProjectFile) -> list[Check]:
    """Ask every node of the project's cluster, and compare the answers with this machine's."""
    from pipeline.engines.ray import RayEngine

    try:
        engine = RayEngine(project.running)
        engine.connect()
    except UniBindError as error:
        return [Check("engine", False, str(error))]
    project.run.mkdir(parents=True, exist_ok=True)
    note = f".probe.{secrets.token_hex(4)}"
    question = NodeQuestion(
        folder=project.run,
        note=note,
        word=secrets.token_hex(16),
        encoders=encoder_names(project.encode),
        device=project.encode.device,
        cwd=str(Path.cwd()),
        families=FACTORIES,
    )
    try:
        (project.run / note).write_text(question.word, encoding="utf-8")
        started = time.time()
        answers, silent = engine.ask_nodes(answer, question)
        ended = time.time()
        found = [Check("engine", True, f"Ray at {engine.address}, {len(answers) + len(silent)} nodes")]
        found += [Check(f"node {node}", False, why) for node, why in silent.items()]
        own = answer(question)
        for node, each in answers.items():
            found += _node(node, each, own, question, started, ended, loopback=engine.is_loopback)
        return [*found, _hardware({node: each.hardware for node, each in answers.items()}, project)]
    finally:
        for path in project.run.glob(f"{note}*"):
            path.unlink(missing_ok=True)
        engine.close()


def _node(
    node: str,
    each: Answer,
    own: Answer,
    question: NodeQuestion,
    started: float,
    ended: float,
    *,
    loopback: bool,
) -> Iterator[Check]:
    """The findings about one node: one line if all is well, else one for each thing that is not."""
    wrong: list[tuple[str, bool]] = []
    if each.store:
        wrong.append((f"does not see the run's folder: {each.store}", True))
    elif not (question.folder / each.wrote).is_file():
        wrong.append((f"what it writes into {question.folder} is not seen here", True))
    if each.code != own.code:
        wrong.append(("runs another version of this program; install the same one", True))
    for name, identity in each.identities.items():
        if identity != own.identities[name]:
            wrong.append(
                (f"has another encoder {name!r} ({identity[:80]}, here {own.identities[name][:12]})", True)
            )
    if not each.token and not loopback:
        wrong.append(("was started without RAY_AUTH_MODE=token: anyone who reaches it runs programs", True))
    if each.free < _FREE_BYTES:
        wrong.append((f"has {each.free / 2**30:.1f} GiB free", False))
    if not started - _CLOCK_S <= each.clock <= ended + _CLOCK_S:
        wrong.append((f"its clock differs by {each.clock - ended:.0f} s; synchronise it", False))
    what = f"node {node} ({each.host})"
    for words, needed in wrong:
        yield Check(what, False, words, needed)
    if not wrong:
        yield Check(
            what,
            True,
            f"sees the run's folder, has this code and these encoders, {each.free / 2**30:.0f} GiB free;"
            f" {'asks for a token' if each.token else 'no token, on loopback'}",
        )


def _hardware(by_node: Mapping[str, str], project: ProjectFile) -> Check:
    classes: dict[str, list[str]] = {}
    for node, each in sorted(by_node.items()):
        classes.setdefault(each, []).append(node)
    if len(classes) <= 1:
        return Check("hardware", True, f"one class: {', '.join(classes) or 'none'}")
    listed = "; ".join(f"{each} on {_some(nodes)}" for each, nodes in classes.items())
    needed = project.running.same_hardware
    end = "[run] same_hardware = true refuses them" if needed else "the last bits of vectors may differ"
    return Check("hardware", False, f"{len(classes)} classes: {listed}; {end}", needed)


def _some(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return ", ".join(nodes[:3]) + more
