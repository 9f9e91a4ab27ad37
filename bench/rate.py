"""Requests per second against a server of 0.5 s latency: ours, our client alone, curator, distilabel.

Every contender runs in a separate process, sends the same prompts to the same server, and is timed by the
server from the first request to the last answer, so that imports do not count. They take turns.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.child import run
from bench.fake import fake_server, reset, seconds, stats
from bench.machine import wait_for_quiet
from bench.rows import at_least, median, row

HERE = Path(__file__).parent
LATENCY_S = 0.5
OURS = "unibind"
CLIENT = "unibind's client alone"
PEERS = ("bespokelabs-curator", "distilabel")
# Requests in flight, and how many times that many are asked for: enough that the first burst, in which all
# connections are opened, weighs little. The client's pool holds a thousand connections.
CYCLES = {64: 20, 256: 40, 1000: 10}
SHARE_OF_IDEAL = {64: 0.97, 256: 0.97}  # goals of ours, by requests in flight
TIMES_THE_BETTER = {1000: 4.0}  # with 256 in flight the better peer is at 0.86 of the ideal
QUIET_SHARE = 0.1
QUIET_AT_MOST_S = 120.0


@dataclass(frozen=True)
class Contender:
    """A client: its Python, its script, and the requests in flight that it is to keep."""

    name: str
    python: Path
    script: Path


@dataclass(frozen=True)
class Measured:
    """One run, or why it failed (`note`)."""

    rate: float | None
    wall_s: float
    cpu_ms: float | None  # per request, start-up included
    others: float  # share of the machine that others used just before
    note: str | None = None


def contenders(python: Path) -> list[Contender]:
    """All contenders; `python` is ours."""
    return [
        Contender(OURS, python, HERE / "ours_run.py"),
        Contender(CLIENT, python, HERE / "client_run.py"),
        *(
            Contender(name, HERE / ".venvs" / name / "bin" / "python", HERE / "peers" / script)
            for name, script in zip(PEERS, ("curator_run.py", "distilabel_run.py"), strict=True)
        ),
    ]


def measure_rates(python: Path, *, rounds: int, cycles: float) -> list[dict[str, Any]]:
    """The rows of each number in flight; `cycles` scales how many times that number is asked for."""
    everybody = contenders(python)
    rows = []
    for in_flight, share in CYCLES.items():
        asking = everybody[:2] if in_flight == 64 else everybody
        found = _interleaved(asking, in_flight=in_flight, rounds=rounds, cycles=max(1, round(cycles * share)))
        rows += _ideal_rows(found, in_flight)
        if len(asking) == len(everybody):
            rows += _peer_rows(found, in_flight)
    return rows


def _interleaved(
    everybody: Sequence[Contender], *, in_flight: int, rounds: int, cycles: int
) -> dict[str, list[Measured]]:
    """The runs of each contender; each has a turn in every round."""
    found: dict[str, list[Measured]] = {each.name: [] for each in everybody}
    with (
        fake_server("--latency", f"{LATENCY_S:g}") as url,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
    ):
        prompts = Path(folder) / "prompts.jsonl"
        _write_prompts(prompts, in_flight * cycles)
        for turn in range(rounds):
            for each in everybody:
                place = Path(folder) / f"{turn}-{each.script.stem}"
                place.mkdir()
                one = _measure(each, url, prompts, in_flight, place)
                found[each.name].append(one)
                said = one.note or f"{one.rate:.1f} requests/s, {one.cpu_ms:.2f} ms of CPU each"
                print(
                    f"{in_flight} in flight, round {turn + 1}, {each.name}: {said} "
                    f"(others used {one.others:.0%} of the machine)",
                    flush=True,
                )
    return found


def _measure(each: Contender, url: str, prompts: Path, in_flight: int, place: Path) -> Measured:
    others = wait_for_quiet(QUIET_SHARE, at_most_s=QUIET_AT_MOST_S)
    if not each.python.exists():
        return Measured(None, 0.0, None, others, note="not installed: run `make bench-peers`")
    reset(url)
    ended = run([each.python, each.script, prompts, url, str(in_flight), place])
    counters = stats(url)
    wanted = len(prompts.read_text(encoding="utf-8").splitlines())
    if ended.code != 0:
        return Measured(None, ended.wall_s, None, others, note=f"{each.script.name}: {ended.failure}")
    if ended.last_line != str(wanted) or counters["answers"] != wanted:
        note = f"{wanted} prompts, {counters['answers']} answers sent, {ended.last_line} returned"
        return Measured(None, ended.wall_s, None, others, note=note)
    if counters["most_in_flight"] > in_flight:
        note = f"{counters['most_in_flight']} requests in flight, {in_flight} allowed"
        return Measured(None, ended.wall_s, None, others, note=note)
    return Measured(wanted / seconds(counters), ended.wall_s, ended.cpu_s / wanted * 1e3, others)


def _write_prompts(path: Path, count: int) -> None:
    system = "You write plain, concrete sentences about what can be seen, heard, felt or measured."
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            user = (
                f'Write one sentence, number {number}, about "thing {number % 40}". Say what it looks like.'
            )
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            file.write(json.dumps(messages) + "\n")


def _ideal_rows(found: dict[str, list[Measured]], in_flight: int) -> list[dict[str, Any]]:
    """Each one's rate as a share of what the latency allows; ours has goals."""
    ideal = in_flight / LATENCY_S
    rows = []
    for name, runs in found.items():
        rates = [one.rate for one in runs if one.rate is not None]
        rate = median(rates)
        ratio = None if rate is None else rate / ideal
        share = SHARE_OF_IDEAL.get(in_flight) if name == OURS else None
        goal = {} if share is None else at_least(ratio, share)
        rows.append(
            row(
                f"rate at {in_flight} in flight: {name}",
                rate,
                "requests/s",
                against=f"ideal {ideal:g}",
                ratio=ratio,
                runs=rates,
                note=_note(runs),
                **goal,
            )
        )
    return rows


def _peer_rows(found: dict[str, list[Measured]], in_flight: int) -> list[dict[str, Any]]:
    """Ours against each peer and against the better of both: the median of the rounds' ratios."""
    ours = [one.rate for one in found[OURS]]
    theirs = {peer: [one.rate for one in found[peer]] for peer in PEERS}
    theirs["the better of both"] = [
        max((rate for rate in pair if rate), default=None)
        for pair in zip(*(theirs[peer] for peer in PEERS), strict=True)
    ]
    rows = []
    for name, rates in theirs.items():
        ratios = [one / other for one, other in zip(ours, rates, strict=True) if one and other]
        highest = median([in_flight / LATENCY_S / rate for rate in rates if rate])
        goal = None if name in PEERS else TIMES_THE_BETTER.get(in_flight)
        rows.append(
            row(
                f"rate at {in_flight} in flight: {OURS} against {name}",
                median([rate for rate in ours if rate]),
                "requests/s",
                against=name,
                ratio=median(ratios),
                runs=ratios,
                note=None if highest is None else f"the latency allows a ratio of {highest:.2f} at most",
                **({} if goal is None else at_least(median(ratios), goal)),
            )
        )
    return rows


def _note(runs: Sequence[Measured]) -> str:
    failures = [one.note for one in runs if one.note]
    whole = [one for one in runs if one.rate is not None]
    cpu = median([one.cpu_ms for one in whole if one.cpu_ms is not None])
    wall = median([one.wall_s for one in whole])
    notes = [] if cpu is None else [f"whole process: {cpu:.2f} ms of CPU per request, {wall:.1f} s in all"]
    notes.append("others used " + ", ".join(f"{one.others:.0%}" for one in runs) + " of the machine before")
    return "; ".join([*failures, *notes])
