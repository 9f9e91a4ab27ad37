"""The rows of `bench/results/*.json`: one number each, with what it is compared with and its goal."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine
from data.files import write_json


def row(
    name: str,
    value: float | None,
    unit: str,
    *,
    against: str | None = None,
    ratio: float | None = None,
    goal: str | None = None,
    met: bool | None = None,
    runs: Sequence[float] = (),
    note: str | None = None,
) -> dict[str, Any]:
    """A row. `runs` are the single measurements of which `value` is the median; `note` says what happened."""
    found: dict[str, Any] = {
        "name": name,
        "value": _rounded(value),
        "unit": unit,
        "against": against,
        "ratio": _rounded(ratio),
        "goal": goal,
        "met": met,
    }
    if runs:
        found["runs"] = [_rounded(value) for value in runs]
    if note:
        found["note"] = note
    return found


def at_least(ratio: float | None, goal: float) -> dict[str, Any]:
    """The goal fields of a row whose ratio must be at least `goal`."""
    return {"goal": f"ratio >= {goal:g}", "met": None if ratio is None else ratio >= goal}


def at_most(value: float | None, goal: float, unit: str) -> dict[str, Any]:
    """The goal fields of a row whose value must be at most `goal`."""
    return {"goal": f"<= {goal:g} {unit}", "met": None if value is None else value <= goal}


def median(values: Sequence[float]) -> float | None:
    """The median; None for no values."""
    return statistics.median(values) if values else None


def last_rows(results: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of an earlier results file, by part."""
    found: dict[str, list[dict[str, Any]]] = {}
    if results.exists():
        for each in json.loads(results.read_text(encoding="utf-8"))["rows"]:
            found.setdefault(each.pop("part"), []).append(each)
    return found


def publish(results: Path, rows: list[dict[str, Any]], *, versions: dict[str, str], command: str) -> None:
    """Write `bench/results/NAME.json`: the rows, the machine, the versions and the command."""
    write_json(results, {"machine": machine(), "versions": versions, "command": command, "rows": rows})


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows, each with whether it met its goal."""
    for each in rows:
        print(f"{each['name']}: {each['value']} {each['unit']}", verdict(each), flush=True)


def verdict(row: dict[str, Any]) -> str:
    """Whether a row met its goal, or what it is compared with."""
    if row["goal"] is None:
        return "" if row["ratio"] is None else f"({row['ratio']} of {row['against']})"
    met = {True: "met", False: "MISSED", None: "not measured"}[row["met"]]
    return f"({row['ratio'] or ''} {row['goal']}: {met})"


def _rounded(value: float | None) -> float | None:
    """Rounded to four significant digits."""
    return None if value is None else float(f"{value:.4g}")
