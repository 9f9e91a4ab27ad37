"""`make bench-latency`: how soon a command answers, as a whole process; writes `bench/results/latency.json`.

    python -m bench.latency [--rounds 5] [--against UNIBIND] [--project FILE]

Each command runs in turns with its floors: an empty Python, and the import of torch and NumPy. `--against`
names the `unibind` of another version, which then takes turns too. `--project` names a project that has run
to its end; without it, a small one is made (the sample world, the fake describer). The runs of a version
share a new cache folder: the first one finds it empty, and is a row of its own.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.child import Ended, run
from bench.fake import UNIBIND
from bench.machine import versions, wait_for_quiet
from bench.rows import at_most, median, print_rows, publish, row

RESULTS = Path(__file__).parent / "results" / "latency.json"
SECONDS, MODEL_SECONDS, LIGHT_SECONDS, FILE_MS = 4.0, 3.0, 0.7, 50.0  # goals
FILES = 20  # beyond the first
_QUIET, _WAIT_S = 0.10, 60.0
_FLOORS = {"floor: python -c pass": "pass", "floor: import torch, numpy": "import torch, numpy"}
_PROJECT = """\
name = "small"

[data]
manifest = "tabletop"

[tabletop]
objects_per_category = 3
image_px = 64
video_px = 32
video_frames = 4
points = 256

[describe.categories]
describer = "fake"
n = 12

[describe.samples]
describer = "facts"

[localize]
k = 8
"""


@dataclass
class Command:
    """A command, its goal in seconds if it has one, and how its runs ended, by version."""

    name: str
    arguments: Sequence[str | Path]
    goal: float | None = None
    ended: dict[str, list[Ended]] = field(default_factory=dict)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="the `unibind` of another version")
    parser.add_argument("--project", type=Path, help="a project that has run to its end")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        home = Path(place)
        project = given.project.resolve() if given.project else _make_project(home / "project")
        programs = {"ours": UNIBIND} | ({"against": given.against} if given.against else {})
        commands = _commands(project, _pictures(project, home / "pictures"))
        first, floors = _measure(commands, programs, home / "cache", given.rounds)
    rows = [*_floor_rows(floors), *_first_rows(first), *_rows(commands)]
    command = f"python -m bench.latency --rounds {given.rounds}" + " --against UNIBIND" * bool(given.against)
    publish(
        given.results,
        rows,
        versions=versions(("torch", "numpy", "pyarrow", "duckdb", "typer")),
        command=command,
    )
    print_rows(rows)


def _make_project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "unibind.toml"
    path.write_text(_PROJECT, encoding="utf-8")
    ended = run([UNIBIND, "run", "--project", path])
    if ended.code != 0:
        raise AssertionError(ended.failure)
    return path


def _pictures(project: Path, folder: Path) -> list[Path]:
    """Pictures of the project's sample world, under names of their own."""
    folder.mkdir()
    found = sorted((project.parent / "runs").glob("*/world/media/*/image.png"))
    assert len(found) > FILES, "the project needs pictures of the sample world"
    return [
        Path(shutil.copy(each, folder / f"{number}.png")) for number, each in enumerate(found[: FILES + 1])
    ]


def _commands(project: Path, pictures: Sequence[Path]) -> list[Command]:
    names = ("--categories", "dog, cat, car")
    of = ("--project", project)
    (run_folder,) = (path.parent for path in (project.parent / "runs").glob("*/metrics.json"))
    copy = pictures[0].parent / "run"
    copy.mkdir()
    for name in ("metrics.json", "named.parquet", "ranks.parquet"):
        shutil.copy(run_folder / name, copy)
    table = pq.read_table(run_folder / "kb" / "categories.parquet", columns=["category_id"])
    texts = pq.read_table(run_folder / "kb" / "descriptions" / "category", columns=["row_id"])
    return [
        Command("predict PHOTO --categories", ("predict", pictures[0], *names), SECONDS),
        Command(f"predict {FILES + 1} PHOTOS --categories", ("predict", *pictures, *names)),
        Command("predict PHOTO --project", ("predict", pictures[0], *of), MODEL_SECONDS),
        Command("retrieve TEXT --project", ("retrieve", "a red fox", *of), MODEL_SECONDS),
        Command("kb nearest TEXT", ("kb", "nearest", "a red fox", *of), MODEL_SECONDS),
        Command("kb stats", ("kb", "stats", *of), LIGHT_SECONDS),
        Command("kb show CATEGORY", ("kb", "show", table["category_id"][0].as_py(), *of), LIGHT_SECONDS),
        Command("kb explain ROW", ("kb", "explain", texts["row_id"][0].as_py(), *of), LIGHT_SECONDS),
        Command("compare RUN RUN", ("compare", run_folder, copy), LIGHT_SECONDS),
        Command("doctor", ("doctor", *of)),
        Command("--help", ("--help",), LIGHT_SECONDS),
    ]


def _measure(
    commands: Sequence[Command], programs: dict[str, Path], cache: Path, rounds: int
) -> tuple[dict[str, Ended], dict[str, list[Ended]]]:
    """Run everything in turns. Returns the first run of each version, and the floors; fills `commands`."""
    env = {version: {"XDG_CACHE_HOME": str(cache / version)} for version in programs}
    wait_for_quiet(_QUIET, at_most_s=_WAIT_S)
    first = {
        version: _ended([program, *commands[0].arguments], env[version])
        for version, program in programs.items()
    }
    floors: dict[str, list[Ended]] = {name: [] for name in _FLOORS}
    for _ in range(rounds):
        for name, code in _FLOORS.items():
            floors[name].append(_ended([sys.executable, "-c", code], {}))
        for command in commands:
            for version, program in programs.items():
                command.ended.setdefault(version, []).append(
                    _ended([program, *command.arguments], env[version])
                )
    return first, floors


def _ended(command: Sequence[str | Path], env: dict[str, str]) -> Ended:
    ended = run(command, env=env)
    if ended.code != 0 and "doctor" not in command:  # which fails where a package or an endpoint is missing
        raise AssertionError(f"{' '.join(map(str, command))}: {ended.failure}")
    return ended


def _floor_rows(floors: dict[str, list[Ended]]) -> list[dict[str, Any]]:
    return [_seconds_row(name, ended) for name, ended in floors.items()]


def _first_rows(first: dict[str, Ended]) -> list[dict[str, Any]]:
    name = "predict PHOTO --categories, the first on a machine"
    return [_seconds_row(_named(name, version), [ended]) for version, ended in first.items()]


def _rows(commands: Sequence[Command]) -> list[dict[str, Any]]:
    rows = []
    for command in commands:
        for version, ended in command.ended.items():
            goal = command.goal if version == "ours" else None
            rows.append(_seconds_row(_named(command.name, version), ended, goal))
        if "against" in command.ended:
            pairs = zip(command.ended["against"], command.ended["ours"], strict=True)
            ratio = median([other.wall_s / own.wall_s for other, own in pairs])
            rows.append(
                row(
                    f"{command.name}: ours against the other",
                    ratio,
                    "times as fast",
                    against="against",
                    ratio=ratio,
                )
            )
    one, many = commands[0], commands[1]
    for version in one.ended:
        pairs = zip(many.ended[version], one.ended[version], strict=True)
        runs = [(several.wall_s - single.wall_s) / FILES * 1e3 for several, single in pairs]
        value = median(runs)
        assert value is not None
        goal = at_most(value, FILE_MS, "ms") if version == "ours" else {}
        rows.append(
            row(_named("predict --categories: each further photo", version), value, "ms", runs=runs, **goal)
        )
    return rows


def _seconds_row(name: str, ended: Sequence[Ended], goal: float | None = None) -> dict[str, Any]:
    runs = [each.wall_s for each in ended]
    value = median(runs)
    cpu = median([each.cpu_s for each in ended])
    assert value is not None and cpu is not None
    return row(
        name,
        value,
        "s",
        runs=runs,
        note=f"{cpu:.2f} s of CPU",
        **(at_most(value, goal, "s") if goal else {}),
    )


def _named(name: str, version: str) -> str:
    return name if version == "ours" else f"{name}, the other version"


if __name__ == "__main__":
    main()
