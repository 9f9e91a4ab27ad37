"""The result table: LLM centers beside every control, for the terminal and for the README.

One `Row` is one modality on one split. It holds the accuracy of the LLM centers with its bootstrap interval,
the same for each control, and it can say against which controls the centers are not ahead. The report page
(pipeline/report.py) reads the same rows, so the terminal, the README and the page can never disagree.

How a difference is worded. Both sides are measured on the same samples and each has its own 95% interval:
    apart        the intervals do not overlap: another draw of samples would very likely keep the difference
    overlapping  the point estimates differ but the intervals overlap: it may be the luck of these samples
(Not overlapping is a stricter test than a paired one: it errs towards calling a real difference luck.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.modality import MODALITIES

CENTERS = "llm_centers"
CONTROLS: tuple[str, ...] = ("class_name", "templates", "random_words", "permuted")
SPLITS: tuple[str, ...] = ("seen", "unseen", "unseen_among_all")
SPLIT_TITLES: dict[str, str] = {
    "seen": "seen categories",
    "unseen": "unseen categories",
    "unseen_among_all": "unseen samples, all categories as candidates",
}
ANCHOR_TITLES: dict[str, str] = {
    CENTERS: "LLM centers",
    "class_name": "class name",
    "templates": "templates",
    "random_words": "random words",
    "permuted": "permuted",
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy as a fraction in 0…1, with its bootstrap interval. `k`: anchors per category."""

    top1: float
    low: float
    high: float
    k: int


@dataclass(frozen=True, slots=True)
class Row:
    """One modality on one split: the LLM centers (None if they were not measured) beside the controls."""

    modality: str
    split: str
    model: str
    chance: float
    n: int
    centers: Accuracy | None
    controls: dict[str, Accuracy]

    def not_beaten(self) -> tuple[str, ...]:
        """The controls that are at or above the LLM centers."""
        if self.centers is None:
            return ()
        return tuple(name for name, control in self.controls.items() if control.top1 >= self.centers.top1)

    def clearly_above(self) -> tuple[str, ...]:
        """The controls above the LLM centers with intervals that do not overlap."""
        centers = self.centers
        if centers is None:
            return ()
        return tuple(name for name, control in self.controls.items() if control.low > centers.high)

    def clearly_below(self) -> tuple[str, ...]:
        """The controls below the LLM centers with intervals that do not overlap."""
        centers = self.centers
        if centers is None:
            return ()
        return tuple(name for name, control in self.controls.items() if centers.low > control.high)

    def best(self) -> tuple[str, ...]:
        """The anchors with the highest top-1 of the row: several when tied."""
        cells = self.cells()
        top = max((cell.top1 for cell in cells.values()), default=0.0)
        return tuple(name for name, cell in cells.items() if cell.top1 == top)

    def cells(self) -> dict[str, Accuracy]:
        """Every measured anchor set of the row, the LLM centers first."""
        return {**({CENTERS: self.centers} if self.centers else {}), **self.controls}


def recognition_rows(metrics: Mapping[str, Any], key: str = "recognition") -> list[Row]:
    """The rows of `metrics[key]` ("recognition" or "zero_shot"), ordered by split, then by modality.

    Where one anchor set was measured with several numbers of anchors, the largest k stands for it.
    """
    found: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for record in metrics.get(key, ()):
        group = found.setdefault((record["split"], record["modality"], record.get("model", "")), {})
        held = group.get(record["anchors"])
        if held is None or record["k"] > held["k"]:
            group[record["anchors"]] = record
    rows = [_row(split, modality, model, group) for (split, modality, model), group in found.items()]
    return sorted(
        rows, key=lambda row: (_place(SPLITS, row.split), _place(MODALITIES, row.modality), row.model)
    )


def _row(split: str, modality: str, model: str, group: Mapping[str, Mapping[str, Any]]) -> Row:
    any_record = next(iter(group.values()))
    cells = {
        name: Accuracy(top1=record["top1"], low=record["top1_low"], high=record["top1_high"], k=record["k"])
        for name, record in group.items()
    }
    ordered = [name for name in CONTROLS if name in cells]
    ordered += sorted(cells.keys() - {CENTERS, *CONTROLS})
    return Row(
        modality=modality,
        split=split,
        model=model,
        chance=any_record["chance"],
        n=any_record["n"],
        centers=cells.get(CENTERS),
        controls={name: cells[name] for name in ordered},
    )


def _place(order: Sequence[str], value: str) -> tuple[int, str]:
    """Sort by a known order; unknown words come after it, by name."""
    return (order.index(value) if value in order else len(order), value)


def media(rows: Iterable[Row]) -> list[Row]:
    """The rows of media modalities. Text is left out of every mean: it starts inside the text space."""
    rows = list(rows)
    return [row for row in rows if row.modality != "text"] or rows


@dataclass(frozen=True, slots=True)
class Mean:
    """The unweighted mean over modalities of one split. `top1` has an entry for each anchor set that every
    one of these modalities was measured with."""

    split: str
    modalities: tuple[str, ...]
    top1: dict[str, float]
    chance: float
    n: int


def split_mean(rows: Iterable[Row], split: str) -> Mean | None:
    """The mean over the media modalities of a split, or None where nothing was measured."""
    chosen = media(row for row in rows if row.split == split)
    if not chosen:
        return None
    shared = [name for name in chosen[0].cells() if all(name in row.cells() for row in chosen)]
    return Mean(
        split=split,
        modalities=tuple(row.modality for row in chosen),
        top1={name: sum(row.cells()[name].top1 for row in chosen) / len(chosen) for name in shared},
        chance=sum(row.chance for row in chosen) / len(chosen),
        n=sum(row.n for row in chosen),
    )


def anchor_names(rows: Iterable[Row]) -> list[str]:
    """Every anchor set that occurs, the LLM centers first, then the controls in their usual order."""
    names = {name for row in rows for name in row.cells()}
    return sorted(names, key=lambda name: _place((CENTERS, *CONTROLS), name))


def anchor_title(name: str) -> str:
    """The readable name of an anchor set."""
    return ANCHOR_TITLES.get(name, name.replace("_", " "))


def split_title(name: str) -> str:
    """The readable name of a split."""
    return SPLIT_TITLES.get(name, name.replace("_", " "))


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal, without the sign: 0.4167 -> "41.7"."""
    return f"{100 * value:.1f}"


def verdict(rows: Iterable[Row]) -> list[str]:
    """Plain sentences: where the LLM centers are ahead of their controls, where not, and how surely."""
    compared = [row for row in rows if row.centers is not None and row.controls]
    if not compared:
        return ["No row holds both LLM centers and a control: nothing can be compared."]
    ahead = [row for row in compared if not row.not_beaten()]
    surely = [row for row in ahead if len(row.clearly_below()) == len(row.controls)]
    share = f"{len(ahead)} of {len(compared)} rows (a row is a modality on a split)"
    sentences = [f"LLM centers are ahead of every control in {share}{_surely(ahead, surely)}."]
    for name in anchor_names(compared)[1:]:
        faced = [row for row in compared if name in row.controls]
        losses = [row for row in faced if name in row.not_beaten()]
        if not losses:
            continue
        clear = [row for row in losses if name in row.clearly_above()]
        surety = f"with intervals apart in {len(clear)}" if clear else "but always with overlapping intervals"
        sentences.append(
            f"They do not beat {anchor_title(name)} in {len(losses)} of {len(faced)} rows, "
            f"{surety}: {_places(losses, faced)}."
        )
    if not any(row.not_beaten() for row in compared):
        sentences.append("No control is at or above them anywhere.")
    return sentences


def _surely(ahead: Sequence[Row], surely: Sequence[Row]) -> str:
    if not ahead:
        return ""
    if not surely:
        return ", nowhere with intervals apart from all of them"
    return f", in {len(surely)} of these with intervals apart from all of them"


def _places(rows: Sequence[Row], of: Sequence[Row]) -> str:
    """Where rows stand, by split: "seen (all 7); unseen (image, audio)"."""
    places = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row.modality for row in rows if row.split == split]
        all_of_them = len(here) > 2 and len(here) == sum(row.split == split for row in of)
        told = f"all {len(here)}" if all_of_them else ", ".join(here)
        places.append(f"{split.replace('_', ' ')} ({told})")
    return "; ".join(places)


def model_title(rows: Sequence[Row]) -> str:
    """What made the vectors of these rows, in words."""
    titles = {"aligned": "aligned heads", "zero_shot": "no training: the untrained shared space"}
    models = dict.fromkeys(row.model for row in rows)
    return ", ".join(titles.get(model, model or "model not named") for model in models)


def result_table(metrics: Mapping[str, Any], key: str = "recognition") -> str:
    """The table for the terminal: one block per split, one line per modality, and the verdict below.

    Numbers are top-1 in percent. `*` marks the best of a row, `!` a control at or above the LLM centers.
    """
    rows = recognition_rows(metrics, key)
    if not rows:
        return "No recognition was measured: the run had no labelled sample to score."
    names = anchor_names(rows)
    header = ["", *(anchor_title(name) for name in names), "chance", "n"]
    lines: list[list[str]] = []
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        lines.append([split_title(split)])
        lines += [
            [f"  {row.modality}", *_plain_cells(row, names), percent(row.chance), str(row.n)] for row in block
        ]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            label = f"  mean of {len(mean.modalities)}"
            means = [f"{percent(mean.top1[name])}  " if name in mean.top1 else "-  " for name in names]
            lines.append([label, *means, percent(mean.chance), str(mean.n)])
    legend = "top-1 %, [95% interval], * best of the row, ! a control at or above the LLM centers"
    if any(row.modality == "text" for row in rows) and any(row.modality != "text" for row in rows):
        legend += "; means leave text out"
    return "\n".join([f"{model_title(rows)}: {legend}", "", *_aligned([header, *lines]), "", *verdict(rows)])


def _plain_cells(row: Row, names: Sequence[str]) -> list[str]:
    cells, best, warned = row.cells(), row.best(), row.not_beaten()
    texts = []
    for name in names:
        if name not in cells:
            texts.append("-  ")
            continue
        cell = cells[name]
        interval = f" [{percent(cell.low)}-{percent(cell.high)}]" if name == CENTERS else ""
        marks = ("*" if name in best else "") + ("!" if name in warned else "")
        texts.append(f"{percent(cell.top1)}{interval}{marks:<2}")
    return texts


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to one width: the first to the left, numbers to the right. Lone cells are headings."""
    columns = max(len(line) for line in lines)
    widths = [max(len(line[at]) for line in lines if len(line) > max(at, 1)) for at in range(columns)]
    texts = []
    for line in lines:
        padded = [cell.rjust(widths[at]) if at else cell.ljust(widths[0]) for at, cell in enumerate(line)]
        texts.append("  ".join(padded).rstrip() if len(line) > 1 else line[0])
    return texts


def result_table_markdown(metrics: Mapping[str, Any], key: str = "recognition") -> str:
    """The same table as GitHub Markdown: the best of a row bold, a control at or above the centers with ▲."""
    rows = recognition_rows(metrics, key)
    if not rows:
        return "No recognition was measured: the run had no labelled sample to score."
    names = anchor_names(rows)
    header = ["split", "modality", *(anchor_title(name) for name in names), "chance", "n"]
    lines = [header, ["---", "---", *["---:"] * (len(names) + 2)]]
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        title = split.replace("_", " ")
        lines += [
            [title, row.modality, *_markdown_cells(row, names), percent(row.chance), str(row.n)]
            for row in block
        ]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            means = [f"*{percent(mean.top1[name])}*" if name in mean.top1 else "–" for name in names]
            label = f"*mean of {len(mean.modalities)}*"
            lines.append([title, label, *means, f"*{percent(mean.chance)}*", str(mean.n)])
    table = ["| " + " | ".join(line) + " |" for line in lines]
    legend = (
        f"Top-1 % ({model_title(rows)}), 95% bootstrap interval in brackets; **bold** is the best of a row, "
        "▲ a control at or above the LLM centers."
    )
    return "\n".join([*table, "", legend, "", *(f"- {sentence}" for sentence in verdict(rows))])


def _markdown_cells(row: Row, names: Sequence[str]) -> list[str]:
    cells, best, warned = row.cells(), row.best(), row.not_beaten()
    texts = []
    for name in names:
        if name not in cells:
            texts.append("–")
            continue
        cell = cells[name]
        number = f"**{percent(cell.top1)}**" if name in best else percent(cell.top1)
        interval = f" [{percent(cell.low)}–{percent(cell.high)}]" if name == CENTERS else ""
        texts.append(f"{number}{interval}{' ▲' if name in warned else ''}")
    return texts
