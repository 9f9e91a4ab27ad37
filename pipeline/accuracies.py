"""Accuracies of the LLM centers beside their controls, and the verdict on each difference.

One `AccuracyRow` is one modality on one split: the accuracy of the LLM centers with its bootstrap interval,
and the same for each control. The terminal, the README (pipeline/table.py) and the report page use the same
rows, so that they agree.

When a difference is significant. Both sides are measured on the same samples:
    paired       the 95% bootstrap interval of the lead, resampled over the objects that both sides answered
                 for, excludes 0
    overlapping  metrics without paired intervals (of older runs) count a difference as significant where the
                 intervals of the two accuracies do not overlap, which is stricter
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from data.modality import MODALITIES
from trainer.evaluate.name_free import NAME_FREE
from trainer.evaluate.tasks import CENTERS

NAMED_CENTERS = f"{CENTERS}+name"  # centers that include the bare name ([localize] with_name)
CONTROLS: tuple[str, ...] = ("class_name", "notes", "templates", "random_words", "permuted")
SPLITS: tuple[str, ...] = ("seen", "unseen", "seen_among_all", "unseen_among_all")
SPLIT_TITLES: dict[str, str] = {
    "seen": "seen categories",
    "unseen": "unseen categories",
    "seen_among_all": "seen samples, all categories as candidates",
    "unseen_among_all": "unseen samples, all categories as candidates",
}
ANCHOR_TITLES: dict[str, str] = {
    CENTERS: "LLM centers",
    NAMED_CENTERS: "LLM centers + name",
    "class_name": "class name",
    "notes": "raw notes",
    "templates": "templates",
    "random_words": "random words",
    "permuted": "permuted",
}


class RecognitionRecord(TypedDict):
    """One row of `recognition`, `zero_shot` or `probe` in metrics.json; docs/metrics.md has every key."""

    modality: str
    split: str
    anchors: str
    k: int
    top1: float
    top1_low: float
    top1_high: float
    chance: float
    n: int
    model: NotRequired[str]
    lead: NotRequired[float | None]  # of the LLM centers over this anchor set
    lead_low: NotRequired[float | None]
    lead_high: NotRequired[float | None]
    p: NotRequired[float | None]


@dataclass(frozen=True, slots=True)
class ShownLead:
    """The LLM centers' top-1 minus a control's, its paired 95% interval, and McNemar's exact p."""

    value: float
    low: float
    high: float
    p: float | None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy as a fraction in 0…1, with its bootstrap interval. `k`: anchors per category.

    `lead`: of the LLM centers over this control, if both were compared sample by sample.
    """

    top1: float
    low: float
    high: float
    k: int
    lead: ShownLead | None = None


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One modality on one split: the LLM centers (None if not measured) and the controls."""

    modality: str
    split: str
    model: str
    chance: float
    n: int
    centers: Accuracy | None
    controls: dict[str, Accuracy]
    with_name: bool = False  # the bare name is one of the LLM centers

    def not_beaten(self) -> tuple[str, ...]:
        """The controls at or above the LLM centers."""
        if self.centers is None:
            return ()
        return tuple(name for name, control in self.controls.items() if control.top1 >= self.centers.top1)

    def clearly_above(self) -> tuple[str, ...]:
        """The controls significantly above the LLM centers (see the module's docstring)."""
        return tuple(name for name, control in self.controls.items() if self._significant_sign(control) < 0)

    def clearly_below(self) -> tuple[str, ...]:
        """The controls significantly below the LLM centers."""
        return tuple(name for name, control in self.controls.items() if self._significant_sign(control) > 0)

    def paired(self) -> bool:
        """Whether every control was compared with the LLM centers sample by sample."""
        return all(control.lead is not None for control in self.controls.values())

    def _significant_sign(self, control: Accuracy) -> int:
        """1 if the LLM centers are significantly ahead of a control, -1 if significantly behind, else 0."""
        if self.centers is None:
            return 0
        if control.lead is not None:
            return (control.lead.low > 0) - (control.lead.high < 0)
        return (self.centers.low > control.high) - (control.low > self.centers.high)

    def best(self) -> tuple[str, ...]:
        """The anchors with the highest top-1 of the row: several when tied."""
        cells = self.cells()
        top = max((cell.top1 for cell in cells.values()), default=0.0)
        return tuple(name for name, cell in cells.items() if cell.top1 == top)

    def cells(self) -> dict[str, Accuracy]:
        """Every measured anchor set of the row, the LLM centers first."""
        return {**({CENTERS: self.centers} if self.centers else {}), **self.controls}


def recognition_rows(metrics: Mapping[str, Any], key: str = "recognition") -> list[AccuracyRow]:
    """The rows of `metrics[key]` ("recognition" or "zero_shot"), ordered by split, then by modality.

    Of an anchor set that was measured with several numbers of anchors, only the largest k is kept. The set
    `name_free` is left out: it is compared with the bare name, see pipeline/description_gain.py.
    """
    found: dict[tuple[str, str, str], dict[str, RecognitionRecord]] = {}
    records: Iterable[RecognitionRecord] = metrics.get(key, ())
    for record in records:
        if record["anchors"] == NAME_FREE:
            continue
        group = found.setdefault((record["split"], record["modality"], record.get("model", "")), {})
        held = group.get(record["anchors"])
        if held is None or record["k"] > held["k"]:
            group[record["anchors"]] = record
    named = bool(metrics.get("with_name"))
    rows = [_row(*place, group, with_name=named) for place, group in found.items()]
    return sorted(
        rows, key=lambda row: (place(SPLITS, row.split), place(MODALITIES, row.modality), row.model)
    )


def _row(
    split: str, modality: str, model: str, group: Mapping[str, RecognitionRecord], *, with_name: bool
) -> AccuracyRow:
    any_record = next(iter(group.values()))
    cells = {
        name: Accuracy(
            top1=record["top1"],
            low=record["top1_low"],
            high=record["top1_high"],
            k=record["k"],
            lead=_lead(record),
        )
        for name, record in group.items()
    }
    ordered = [name for name in CONTROLS if name in cells]
    ordered += sorted(cells.keys() - {CENTERS, *CONTROLS})
    return AccuracyRow(
        modality=modality,
        split=split,
        model=model,
        chance=any_record["chance"],
        n=any_record["n"],
        centers=cells.get(CENTERS),
        controls={name: cells[name] for name in ordered},
        with_name=with_name,
    )


def _lead(record: RecognitionRecord) -> ShownLead | None:
    lead, low, high = record.get("lead"), record.get("lead_low"), record.get("lead_high")
    if lead is None or low is None or high is None:
        return None
    return ShownLead(lead, low, high, record.get("p"))


def not_measured(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each modality without a row: "audio (18 samples): no sample has a category"."""
    sentences = []
    for record in metrics.get("unmeasured", ()):
        samples = f"{record['n']} sample{'' if record['n'] == 1 else 's'}"
        about = f"{record['modality']} ({samples}): " if record["modality"] else ""
        sentences.append(f"{about}{record['reason']}")
    return sentences


def place(order: Sequence[str], value: str) -> tuple[int, str]:
    """A sort key: the place in a known order; unknown values come after it, by name."""
    return (order.index(value) if value in order else len(order), value)


def media(rows: Iterable[AccuracyRow]) -> list[AccuracyRow]:
    """The rows of media modalities. Means leave text out, which is in the text space already."""
    rows = list(rows)
    return [row for row in rows if row.modality != "text"] or rows


@dataclass(frozen=True, slots=True)
class Mean:
    """The unweighted mean over the modalities of one split. `top1` has the anchor sets measured for all."""

    split: str
    modalities: tuple[str, ...]
    top1: dict[str, float]
    chance: float
    n: int


def split_mean(rows: Iterable[AccuracyRow], split: str) -> Mean | None:
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


def anchor_names(rows: Iterable[AccuracyRow]) -> list[str]:
    """Every anchor set that occurs, the LLM centers first, then the controls in their usual order."""
    names = {name for row in rows for name in row.cells()}
    return sorted(names, key=lambda name: place((CENTERS, *CONTROLS), name))


def anchor_title(name: str, rows: Iterable[AccuracyRow]) -> str:
    """The readable name of an anchor set in some rows: centers that hold the bare name say so."""
    if name == CENTERS and any(row.with_name for row in rows):
        name = NAMED_CENTERS
    return ANCHOR_TITLES.get(name, name.replace("_", " "))


def centers_title(rows: Iterable[AccuracyRow]) -> str:
    """The readable name of the LLM centers of some rows."""
    return anchor_title(CENTERS, rows)


def split_title(name: str) -> str:
    """The readable name of a split."""
    return SPLIT_TITLES.get(name, name.replace("_", " "))


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal, without the sign: 0.4167 -> "41.7"."""
    return f"{100 * value:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points with its sign: 0.042 -> "+4.2"."""
    rounded = round(100 * difference, 1) + 0.0  # no minus sign before zero
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def verdict(rows: Iterable[AccuracyRow]) -> list[str]:
    """Sentences that say where the LLM centers are ahead of their controls, and which leads are significant.

    They use the paired interval of the lead where every row has one, else overlapping intervals.
    """
    compared = [row for row in rows if row.centers is not None and row.controls]
    if not compared:
        return ["No row has both LLM centers and a control, so nothing can be compared."]
    ours = centers_title(compared)
    ahead = [row for row in compared if not row.not_beaten()]
    significant = [row for row in ahead if len(row.clearly_below()) == len(row.controls)]
    share = f"{len(ahead)} of {len(compared)} rows (a row is a modality on a split)"
    words = _PAIRED if all(row.paired() for row in compared) else _UNPAIRED
    sentences = [f"{ours} are ahead of every control in {share}{_significance(ahead, significant, words)}."]
    for name in anchor_names(compared)[1:]:
        faced = [row for row in compared if name in row.controls]
        losses = [row for row in faced if name in row.not_beaten()]
        if not losses:
            continue
        clear = [row for row in losses if name in row.clearly_above()]
        how = words.behind.format(n=len(clear)) if clear else words.never_behind
        sentences.append(
            f"They do not beat {anchor_title(name, rows)} in {len(losses)} of {len(faced)} rows; "
            f"{how}: {_places(losses, faced)}."
        )
    if not any(row.not_beaten() for row in compared):
        sentences.append("No control is at or above them anywhere.")
    return sentences


@dataclass(frozen=True, slots=True)
class _Phrases:
    """The wording of significant and other differences. `{n}` is a number of rows."""

    ahead: str
    never_ahead: str
    behind: str
    never_behind: str


_PAIRED = _Phrases(
    ahead="significantly in {n} of these: the paired 95% intervals of all leads exclude 0",
    never_ahead="significantly in none: some paired 95% interval of a lead includes 0",
    behind="the control is significantly ahead in {n} of them (the paired interval excludes 0)",
    never_behind="the control is significantly ahead in none of them (every paired interval includes 0)",
)
_UNPAIRED = _Phrases(
    ahead="in {n} of these with intervals that do not overlap",
    never_ahead="in all of these with overlapping intervals",
    behind="in {n} of them the intervals do not overlap",
    never_behind="in all of them the intervals overlap",
)


def _significance(ahead: Sequence[AccuracyRow], significant: Sequence[AccuracyRow], words: _Phrases) -> str:
    if not ahead:
        return ""
    return f", {words.ahead.format(n=len(significant)) if significant else words.never_ahead}"


def _places(rows: Sequence[AccuracyRow], of: Sequence[AccuracyRow]) -> str:
    """The modalities of some rows by split: "seen (all 7); unseen (image, audio)"."""
    places = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row.modality for row in rows if row.split == split]
        all_of_them = len(here) > 2 and len(here) == sum(row.split == split for row in of)
        names = f"all {len(here)}" if all_of_them else ", ".join(here)
        places.append(f"{split.replace('_', ' ')} ({names})")
    return "; ".join(places)


def model_title(rows: Sequence[AccuracyRow]) -> str:
    """The model behind the vectors of these rows, in words."""
    titles = {"aligned": "aligned heads", "zero_shot": "no training: the untrained shared space"}
    models = dict.fromkeys(row.model for row in rows)
    return ", ".join(titles.get(model, model or "model not named") for model in models)
