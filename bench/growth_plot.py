"""`python -m bench.growth_plot`: the part `growth` of bench/results/store.json as a table and a picture.

Prints the table as Markdown and writes docs/growth.png.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
STEPS = {
    "encode-minilm": "encode, MiniLM",
    "encode": "encode, its first layer",
    "localize": "localize",
    "score": "score 10,000 queries",
}


def main() -> None:
    """Read the results, print the table, draw the picture."""
    results = json.loads((ROOT / "bench/results/store.json").read_text(encoding="utf-8"))
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in results["rows"]:
        if row["part"] != "growth" or row["value"] is None:
            continue
        name, _, measure = row["name"].partition(": ")
        step, _, size = name.partition(" ")
        kind = "mb" if measure else "s"
        found.setdefault((step, int(size.replace(",", ""))), {})[kind] = row["value"]
    sizes = sorted({size for _, size in found})
    print("| descriptions |" + "".join(f" {title} |" for title in STEPS.values()))
    print("| ---: |" + " ---: |" * len(STEPS))
    for size in sizes:
        cells = [
            f" {found[step, size]['s']:.3g} s, {found[step, size]['mb']:,.0f} MB |"
            if (step, size) in found
            else " – |"
            for step in STEPS
        ]
        print(f"| {size:,} |" + "".join(cells))
    _draw(found, sizes)


def _draw(found: dict[tuple[str, int], dict[str, float]], sizes: list[int]) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), dpi=150, layout="constrained")
    for panel, kind, label in zip(panels, ("s", "mb"), ("seconds", "peak of memory, MB"), strict=True):
        for step, title in STEPS.items():
            there = [size for size in sizes if (step, size) in found]
            panel.loglog(there, [found[step, size][kind] for size in there], "o-", label=title, markersize=4)
        panel.set(xlabel="descriptions", ylabel=label)
        panel.grid(alpha=0.3)
    panels[1].set_ylim(100, 10_000)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(ROOT / "docs/growth.png")


if __name__ == "__main__":
    main()
