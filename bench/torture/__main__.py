"""`make torture`: run every attack in turn, for TORTURE_MINUTES (60), on a small project.

    python -m bench.torture [--minutes 60] [--seed N] [--only kills,flips] [--out FILE]

An attack is a function that yields trials without end, each with the problem it found, if any; it gets a
share of the time. Prints every problem as it is found and, at the end, how often each attack was tried and
held. Exit status 1 if there is a problem. A run of all attacks writes bench/results/torture.json and updates
the table of docs/reliability.md (as `python -m bench.torture.page` does); a run of some writes only to
`--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import versions
from bench.rows import publish, row
from bench.torture import clocks, disk, kills, kinds, ledgers, places, proxy, wounds
from bench.torture.ground import Ground, ground
from bench.torture.page import PAGE, RESULTS, table, update
from bench.torture.trial import Trial
from data.show import visible

_PACKAGES = ("torch", "pyarrow", "duckdb", "safetensors", "aiohttp", "openai", "av", "pillow", "soundfile")
_RECORDED_AT_MOST = 20  # problems of one attack that are recorded


@dataclass(frozen=True)
class Attack:
    """An attack: its name in the table, its share of the time, and the function that yields its trials."""

    key: str
    name: str
    share: float
    trials: Callable[[Ground, random.Random], Iterator[Trial]]


ATTACKS = (
    Attack("kills", "SIGKILL at random moments of a run", 4, kills.kills),
    Attack("flips", "a file at rest flipped, cut, emptied, deleted or swapped", 4, wounds.strike_files),
    Attack("proxy", "answers damaged by a proxy", 3, proxy.corrupting_proxy),
    Attack("media", "mutants of media files", 3, kinds.media),
    Attack("files", "mutants of the project's own files and of lists", 2, kinds.files),
    Attack("places", "pipes, devices, links, folders in odd places", 2, places.odd_places),
    Attack("disk", "a disk that fills up and grows", 3, disk.full_disks),
    Attack("ledger", "a ledger on a disk that fills up, with kills and readers", 2, ledgers.ledgers),
    Attack("limits", "limits on file size, open files, memory", 2, disk.limits),
    Attack("readonly", "folders of another user and read-only mounts", 2, disk.read_only),
    Attack("clock", "the clock set back and forth", 2, clocks.leaping_clocks),
    Attack("removed", "the run's folder removed while it is written", 2, disk.removals),
)


@dataclass
class Tally:
    """The trials and problems of an attack."""

    tried: int = 0
    problems: list[str] = field(default_factory=list)


def torture(minutes: float, seed: int, chosen: list[Attack], root: Path) -> dict[str, Tally]:
    """Run the attacks, each until its share of the time is over, with at least one trial."""
    tallies = {attack.name: Tally() for attack in chosen}
    ends = time.monotonic() + 60 * minutes
    with ground(root) as place:
        print(f"an undisturbed run takes {place.seconds:.1f} s; seed {seed}", flush=True)
        for number, attack in enumerate(chosen):
            shares = sum(each.share for each in chosen[number:])
            until = time.monotonic() + max(0.0, ends - time.monotonic()) * attack.share / shares
            tally = tallies[attack.name]
            for trial in attack.trials(place, random.Random(f"{seed}/{attack.key}")):
                tally.tried += 1
                if trial.problem is not None:
                    tally.problems.append(f"{trial.what}: {trial.problem}")
                    print(f"  {attack.key}: {visible(tally.problems[-1])}", flush=True)
                if time.monotonic() > until:
                    break
            print(f"{attack.name}: {tally.tried:,} tried, {len(tally.problems):,} broken", flush=True)
    return tallies


def rows(tallies: dict[str, Tally]) -> list[dict[str, Any]]:
    """One row for each attack: how many of its trials found a problem."""
    return [
        row(
            name,
            len(each.problems),
            "silent or broken",
            against="trials",
            ratio=len(each.problems) / each.tried if each.tried else None,
            goal="0",
            met=not each.problems if each.tried else None,
        )
        | {"tried": each.tried, "problems": each.problems[:_RECORDED_AT_MOST]}
        for name, each in tallies.items()
    ]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("TORTURE_MINUTES", "60")))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--only", default="", help=", ".join(attack.key for attack in ATTACKS))
    parser.add_argument("--out", type=Path, help="where the numbers go (bench/results/torture.json)")
    given = parser.parse_args()
    wanted = [key for key in given.only.split(",") if key]
    if unknown := set(wanted) - {attack.key for attack in ATTACKS}:
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    chosen = [attack for attack in ATTACKS if not wanted or attack.key in wanted]
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        tallies = torture(given.minutes, given.seed, chosen, Path(folder))
    found = rows(tallies)
    print(table(found))
    command = f"python -m bench.torture --minutes {given.minutes:g} --seed {given.seed}"
    command += f" --only {given.only}" if given.only else ""
    out = given.out or (None if wanted else RESULTS)
    if out is None:
        print("\nnumbers  of some attacks alone are not kept; say --out FILE to keep them")
    else:
        publish(out, found, versions=versions(_PACKAGES), command=command)
        print(f"\nnumbers  {json.dumps(str(out))[1:-1]}")
    if out == RESULTS:
        update()
        print(f"page     {json.dumps(str(PAGE))[1:-1]}")
    sys.exit(any(each.problems for each in tallies.values()))


if __name__ == "__main__":
    main()
