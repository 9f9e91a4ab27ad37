"""`python -m bench.torture.readers`: mutants of every format, read as the pipeline reads them.

    python -m bench.torture.readers [--count 300] [--seed 0] [--only .obj,.tiff] [--keep FOLDER]

A mutant must be read, or refused with one line (`SampleError`); what was read must be rendered and measured.
Prints, per format, how many were read, refused, too slow, too large and fatal to their decoder, and each
unexpected exception with the mutant that raised it. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.torture.mutate import mutant
from bench.torture.seeds import Format, formats
from data.errors import SampleError
from data.modality import Modality
from data.readers import FileBudget, read, reading_ahead, use_budget
from data.readers.payload import Text
from data.render import render
from kb_builder.facts.sentence import measure

BUDGET = FileBudget(seconds=5, memory=10**9)
_TOGETHER = 16
_REASONS = {"took longer": "slow", "needed more": "large", "its decoder": "fatal", "decoder crashed": "fatal"}


@dataclass
class Tally:
    """The outcomes of a format's mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of refusals
    foreign: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # slow, large or fatal, within bounds; worth a look


def attack(each: Format, *, count: int, seed: int, folder: Path, start: int = 0) -> Tally:
    """Read `count` mutants of a format. Those worth an inspection stay in `folder`."""
    tally = Tally()
    for first in range(start, start + count, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, start + count))
        files = [folder / f"{seed}-{number}{each.ending}" for number in numbers]
        for number, path in zip(numbers, files, strict=True):
            path.write_bytes(mutant(each.contents, seed=seed, number=number))
        for path, outcome, message in _read(each.modality, files):
            tally.outcomes[outcome] += 1
            if outcome == "refused":
                tally.reasons[message.replace(str(path), "")] += 1
            if outcome == "foreign":
                tally.foreign.append(f"{path.name}: {message}")
            elif outcome in _REASONS.values():
                tally.broken.append(f"{path.name}: {message}")
            else:
                path.unlink()
    return tally


def _read(modality: Modality, files: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
    """(file, outcome, message)."""
    with reading_ahead([(modality, path) for path in files]):
        for path in files:
            try:
                payload = read(modality, path)
                measure(payload)
                if not isinstance(payload, Text):
                    render(payload)
            except SampleError as error:
                message = str(error)
                fitting = (kind for words, kind in _REASONS.items() if words in message)
                outcome = (
                    next(fitting, "refused") if "\n" not in message and str(path) in message else "foreign"
                )
            except Exception as error:
                outcome, message = "foreign", f"{type(error).__name__}: {error}"
            else:
                outcome, message = "read", ""
            yield path, outcome, message


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--reasons", action="store_true")
    given = parser.parse_args()
    use_budget(BUDGET)
    foreign = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for each in formats():
            if given.only and each.ending not in given.only.split(","):
                continue
            tally = attack(each, count=given.count, seed=given.seed, folder=folder)
            print(f"{each.modality:8} {each.ending:8}", dict(tally.outcomes), flush=True)
            for line in [*tally.foreign, *tally.broken]:
                print("   ", line[:300])
            if given.reasons:
                for reason, times in tally.reasons.most_common(15):
                    print(f"    {times:5} {reason[:200]}")
            foreign += len(tally.foreign)
    raise SystemExit(foreign > 0)


if __name__ == "__main__":
    main()
