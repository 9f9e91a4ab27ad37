"""Print a comparison of runs as plain text."""

from __future__ import annotations

from data.show import aligned, visible
from pipeline.accuracies import ANCHOR_TITLES, NAMED_CENTERS, percent, split_title
from pipeline.compare.runs import ComparedValue, Comparison

_MEASURES = {"r10_mean": "mean over pairs", "r10_worst": "worst pair"}
_LEGEND = (
    "top-1 and recall@10 in percent, difference with its 95% interval (paired bootstrap over objects);\n"
    "p: McNemar's exact test; for means and worst pairs, a test that swaps two runs' answers per object"
)


def comparison_text(comparison: Comparison) -> str:
    """Tables: one per run beside the first, then the balance of all."""
    first, *others = comparison.runs
    blocks = [
        "\n".join(map(visible, _head(comparison))),
        _LEGEND + (", Holm-corrected" if len(others) > 1 else ""),
    ]
    for other in others:
        lines = [line for line in comparison.lines if line.run == other["name"]]
        header = ["", "n", first["name"], other["name"], "difference", "", "p", "verdict"]
        table: list[list[str]] = [header]
        for title in dict.fromkeys(_title(line) for line in lines):
            table.append([title])
            table += [_cells(line) for line in lines if _title(line) == title]
        title = visible(f"{other['name']} beside {first['name']}")
        blocks.append("\n".join([title, "", *aligned(table, left=(0, len(header) - 1))]))
    if comparison.descriptions:
        blocks.append(_gain_table(comparison))
    if comparison.balance:
        names = [run["name"] for run in comparison.runs]
        values = {(row["measure"], row["run"]): row["value"] for row in comparison.balance}
        rows = [["balance", *names]]
        for measure in dict.fromkeys(row["measure"] for row in comparison.balance):
            rows.append([measure, *(_number(values[measure, name]) for name in names)])
        blocks.append("\n".join(aligned(rows)))
    return "\n\n".join(blocks)


def _gain_table(comparison: Comparison) -> str:
    """What the descriptions gain over the bare name, each name said once: a row per split and run."""
    rows = [["by description alone, over the bare name", "gain", "", "texts per category"]]
    for row in comparison.descriptions:
        interval = f"[{100 * row['low']:+.1f} to {100 * row['high']:+.1f}]"
        where = f"{split_title(row['split'])}: {row['run']}"
        rows.append([visible(where), f"{100 * row['gain']:+.1f}", interval, f"{row['texts']:.1f}"])
    return "\n".join(aligned(rows))


def _head(comparison: Comparison) -> list[str]:
    lines = []
    for run in comparison.runs:
        model = run["model"].replace("_", "-")
        named = f", {ANCHOR_TITLES[NAMED_CENTERS]}" if run.get("with_name") else ""
        lines.append(f"{run['name']}: {run['folder']} ({model}{named})")
        if run["left_out"]:
            lines.append(f"  left out: {run['left_out']:,} of its samples, which not every run has")
    return lines + [f"note: {note}" for note in comparison.notes]


def _title(line: ComparedValue) -> str:
    return split_title(line.group) if line.measure == "top1" else f"retrieval by {line.group}, recall@10"


def measure_title(line: ComparedValue) -> str:
    """What a line compares, in words, for a table without groups."""
    return f"{_title(line)}: {_MEASURES.get(line.measure, line.modality or 'mean over modalities')}"


def _cells(line: ComparedValue) -> list[str]:
    label = _MEASURES.get(line.measure, line.modality or "mean over modalities")
    return [
        f"  {label}",
        f"{line.n:,}",
        percent(line.first),
        percent(line.value),
        f"{100 * line.difference:+.1f}",
        f"[{100 * line.low:+.1f} to {100 * line.high:+.1f}]",
        p_text(line.p_holm),
        line.verdict,
    ]


def p_text(p: float) -> str:
    """A p-value with three decimals; a smaller one as "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
