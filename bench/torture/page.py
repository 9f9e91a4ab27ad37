"""`python -m bench.torture.page`: update docs/reliability.md from bench/results/torture.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "torture.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- begin of what `make torture` found -->", "<!-- end of what `make torture` found -->"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of how often each attack was tried and held."""
    lines = [
        f"| {each['name']} | {each['tried']:,} | {each['tried'] - int(each['value']):,} |" for each in rows
    ]
    return "\n".join(["| attack | tried | held |", "|---|---:|---:|", *lines])


def rendered(results: Mapping[str, Any]) -> str:
    """The text between the page's markers: the table, the problems, and how it was measured.

    `results` is the content of bench/results/torture.json.
    """
    parts = [table(results["rows"])]
    broken = [f"- {each['name']}: {problem}" for each in results["rows"] for problem in each["problems"]]
    if broken:
        parts.append("What did not hold:\n\n" + "\n".join(broken))
    machine = results["machine"]
    parts.append(f"`{results['command']}` on {machine['processor']}, {machine['cores']} cores.")
    return "\n\n".join(parts)


def updated(page: str, results: Mapping[str, Any]) -> str:
    """The page with new text between its markers. Raises ValueError where a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name}: the markers {BEGIN!r} and {END!r} are missing; put them back")
    return f"{before}{BEGIN}\n\n{rendered(results)}\n\n{END}{after}"


def update(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Update the page."""
    found = json.loads(results.read_text(encoding="utf-8"))
    write_text(page, updated(page.read_text(encoding="utf-8"), found))


if __name__ == "__main__":
    update()
