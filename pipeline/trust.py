"""What a run says about which scores to trust: what training changed, and how trained categories compete.

Read from `trust` and `stacking` in metrics.json. The terminal, the report and `unibind predict` use the same
sentences, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data.modality import MODALITIES
from data.show import aligned
from pipeline.accuracies import percent, place, points, split_title
from pipeline.html.elements import counted
from trainer.evaluate.intervals import harmonic_mean

Use = Literal["auto", "zero-shot", "heads", "mean"]
MODEL_OF: dict[str, str] = {"zero-shot": "zero_shot", "heads": "aligned", "mean": "mean"}  # `auto` chooses
MODEL_TITLES: dict[str, str] = {"zero_shot": "zero-shot", "aligned": "heads", "mean": "mean of both"}
VAL = "val"
_SPLITS = (VAL, "seen", "unseen")  # shown


@dataclass(frozen=True, slots=True)
class ModelShare:
    """The top-1 of one model on some samples, with its interval, and the chosen model's lead over it."""

    top1: float
    low: float | None
    high: float | None
    lead: float | None = None
    lead_low: float | None = None
    lead_high: float | None = None


@dataclass(frozen=True, slots=True)
class Trusted:
    """One modality: the model that is used, why, and what each model reaches on the same samples."""

    modality: str
    used: str  # zero_shot, aligned or mean
    why: Literal["only", "val", "toss-up", "no val", "asked for", "not there"]
    shares: Mapping[str, Mapping[str, ModelShare]]  # split -> model -> share
    n: Mapping[str, int]  # split -> samples
    reason: str | None = None  # why there is a single model

    @property
    def models(self) -> list[str]:
        """The models that were measured, in the usual order."""
        found = {model for shares in self.shares.values() for model in shares}
        return [model for model in MODEL_TITLES if model in found]

    def to_text(self) -> str:
        """One sentence on what is used and why, and one on what each model reaches on test samples."""
        return f"{self.modality}: {self._choice()}{self._tested()}"

    def _choice(self) -> str:
        used = MODEL_TITLES[self.used]
        if self.why == "only":
            return f"{used} only; {self.reason}"
        if self.why == "not there":
            return f"{used} only, whatever [predict] use says; {self.reason}"
        if self.why == "asked for":
            return f"{used}, as [predict] use says"
        if self.why == "no val":
            return f"{used}; there is no val sample to choose by"
        samples = counted(self.n[VAL], "val sample")
        shares = self._list(VAL, [model for model in self.models if model != "mean"])
        if self.why == "toss-up":
            return f"{used}; on {samples} training is a toss-up ({shares})"
        return f"{used}, chosen on {samples} ({self._list(VAL, self.models)})"

    def _tested(self) -> str:
        splits = [split for split in ("seen", "unseen") if split in self.shares]
        if len(self.models) == 1:
            parts = [
                f"{percent(self.shares[split][self.used].top1)}% of {self._samples(split)}"
                for split in splits
            ]
            return f". Right: {', '.join(parts)}" if parts else ""
        parts = [f"on {self._samples(split)} {self._list(split, self.models)}" for split in splits]
        return f". The same {'; '.join(parts)}" if parts else ""

    def _samples(self, split: str) -> str:
        return f"{counted(self.n[split], 'test sample')} of {split_title(split)}"

    def _list(self, split: str, models: Sequence[str]) -> str:
        found = self.shares[split]
        return ", ".join(f"{MODEL_TITLES[m]} {percent(found[m].top1)}%" for m in models if m in found)


def trusted(metrics: Mapping[str, Any], use: str = "auto") -> list[Trusted]:
    """The modalities of a trained run in the usual order; `use` is that of [predict]."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in metrics.get("trust", ()):
        rows.setdefault(row["modality"], []).append(row)
    return [
        _trusted(modality, rows[modality], use)
        for modality in sorted(rows, key=lambda name: place(MODALITIES, name))
    ]


def _trusted(modality: str, rows: Sequence[Mapping[str, Any]], use: str) -> Trusted:
    shares: dict[str, dict[str, ModelShare]] = {}
    for row in rows:
        leads = (row.get(name) for name in ("lead", "lead_low", "lead_high"))
        share = ModelShare(row["top1"], row["top1_low"], row["top1_high"], *leads)
        shares.setdefault(row["split"], {})[row["model"]] = share
    models = {row["model"] for row in rows}
    chosen = next(row["model"] for row in rows if row["chosen"])
    why: Literal["only", "val", "toss-up", "no val", "asked for", "not there"]
    why = "val" if VAL in shares else "no val"
    if use != "auto" and MODEL_OF[use] in models and len(models) > 1:
        chosen, why = MODEL_OF[use], "asked for"
    elif len(models) == 1:
        why = "only" if use == "auto" or MODEL_OF[use] == chosen else "not there"
    elif VAL in shares and rows[0]["toss_up"]:
        why = "toss-up"
    return Trusted(
        modality=modality,
        used=chosen,
        why=why,
        shares={split: shares[split] for split in sorted(shares, key=lambda name: place(_SPLITS, name))},
        n={row["split"]: row["n"] for row in rows},
        reason=rows[0]["reason"],
    )


@dataclass(frozen=True, slots=True)
class Stacked:
    """Trained and untrained categories as rivals, without and with the constant: shares of test samples."""

    modality: str  # or "mean of N"
    model: str
    constant: float | None  # None for a mean
    seen: float
    unseen: float
    seen_stacked: float
    unseen_stacked: float
    low: float | None = None  # of the harmonic mean with the constant
    high: float | None = None

    @property
    def harmonic(self) -> float:
        """The harmonic mean of both accuracies without the constant."""
        return harmonic_mean(self.seen, self.unseen)

    @property
    def harmonic_stacked(self) -> float:
        """The same with the constant."""
        return harmonic_mean(self.seen_stacked, self.unseen_stacked)


def stacked(metrics: Mapping[str, Any], use: str = "auto") -> list[Stacked]:
    """One row for each modality, of the model that is used for it; empty where none was measured."""
    used = {each.modality: each.used for each in trusted(metrics, use)}
    rows = [
        Stacked(
            row["modality"],
            row["model"],
            row["constant"],
            row["seen"],
            row["unseen"],
            row["seen_stacked"],
            row["unseen_stacked"],
            row["harmonic_stacked_low"],
            row["harmonic_stacked_high"],
        )
        for row in metrics.get("stacking", ())
        if row["model"] == used.get(row["modality"]) and row["harmonic"] is not None
    ]
    return sorted(rows, key=lambda row: place(MODALITIES, row.modality))


def stacked_mean(rows: Sequence[Stacked]) -> Stacked | None:
    """The means of the accuracies over the modalities without text; its `harmonic` is that of the means."""
    media = [row for row in rows if row.modality != "text"] or list(rows)
    if len(media) < 2:
        return media[0] if media else None

    def mean(name: str) -> float:
        return float(sum(getattr(row, name) for row in media) / len(media))

    names = ("seen", "unseen", "seen_stacked", "unseen_stacked")
    return Stacked(f"mean of {len(media)}", "", None, *(mean(name) for name in names))


def with_mean(rows: Sequence[Stacked]) -> list[Stacked]:
    """The rows, and their mean where there are several to average; empty without any."""
    mean = stacked_mean(rows)
    return [*rows, *([mean] if mean is not None and len(rows) > 1 and mean.constant is None else [])]


def trust_text(metrics: Mapping[str, Any], use: str = "auto") -> list[str]:
    """The lines for the terminal, after the result table; empty for a run without heads."""
    found = trusted(metrics, use)
    if not found:
        return []
    return [*_training_lines(found), *_stacking_lines(stacked(metrics, use)), *_repeat_lines(metrics)]


def _training_lines(found: Sequence[Trusted]) -> list[str]:
    compared = [each for each in found if len(each.models) > 1]
    lines = ["What training changed, on the same samples (top-1 %; * is used by `unibind predict`)"]
    rows = [["", *MODEL_TITLES.values(), "n"]]
    for each in compared:
        rows.append([each.modality])
        for split in (split for split in _SPLITS if split in each.shares):
            shares = each.shares[split]
            cells = [
                f"{percent(shares[model].top1)}{'*' if model == each.used else ' '}"
                if model in shares
                else "-"
                for model in MODEL_TITLES
            ]
            rows.append([f"  {shown_split(split)}", *cells, f"{each.n[split]:,}"])
    table = aligned(rows) if compared else []
    return ["", *lines, "", *table, *([""] if table else []), *choices(found)]


def choices(found: Sequence[Trusted]) -> list[str]:
    """A sentence for each modality with a choice, and one for those that have a single model."""
    lines = [f"{each.modality}: {each._choice()}." for each in found if len(each.models) > 1]
    alone: dict[tuple[str, str | None], list[str]] = {}
    for each in found:
        if len(each.models) == 1:
            alone.setdefault((each.used, each.reason), []).append(each.modality)
    return lines + [
        f"{', '.join(names)}: {MODEL_TITLES[used]} only; {reason}." for (used, reason), names in alone.items()
    ]


def shown_split(split: str) -> str:
    """The title of a split of `Trusted.shares`."""
    return "val, trained categories" if split == VAL else split_title(split)


def _stacking_lines(rows: Sequence[Stacked]) -> list[str]:
    if not rows:
        return []
    table = [["", "constant", "trained", "untrained", "H", "trained", "untrained", "H"]]
    for row in with_mean(rows):
        after = (row.seen_stacked, row.unseen_stacked, row.harmonic_stacked)
        interval = "" if row.low is None or row.high is None else f" [{percent(row.low)}-{percent(row.high)}]"
        table.append(
            [
                f"  {row.modality}",
                "" if row.constant is None else f"{row.constant:.3f}",
                *(percent(value) for value in (row.seen, row.unseen, row.harmonic)),
                *(percent(value) for value in after[:2]),
                f"{percent(after[2])}{interval}",
            ]
        )
    return [
        "",
        "Trained and untrained categories as rivals (top-1 %; H is their harmonic mean), first as they are,",
        "then with a constant off the scores of trained ones, found by holding out trained categories",
        "",
        *aligned(table),
    ]


METHOD_TITLES: dict[str, str] = {
    "heads": "heads",
    "linear_probe": "logistic regression",
    "neighbours": "nearest neighbours",
    "zero_shot": "zero-shot",
    "mean": "mean of both",
    "chosen": "chosen on val",
}


@dataclass(frozen=True, slots=True)
class Repeated:
    """The means of several methods over splits that were drawn again: one modality, one number of shots."""

    modality: str  # or "mean of N modalities"
    shots: int | None
    n_splits: int
    shares: Mapping[str, ModelShare]  # by method; `lead` is that of the heads

    def to_text(self) -> str:
        """The verdict on heads against logistic regression, in a sentence; empty where not measured."""
        other = self.shares.get("linear_probe")
        if other is None or other.lead is None or "heads" not in self.shares:
            return ""
        side = "ahead of" if other.lead >= 0 else "behind"
        named = (
            f"Over {counted(self.n_splits, 'split')}, heads are {points(abs(other.lead)).lstrip('+')} points"
        )
        named += f" {side} logistic regression"
        if other.lead_low is None or other.lead_high is None:
            return f"{named}; one split has no interval."
        sure = "for certain" if other.lead_low > 0 or other.lead_high < 0 else "which may be chance"
        return f"{named} [{points(other.lead_low)} to {points(other.lead_high)}], {sure} ({self.modality})."


def repeated(metrics: Mapping[str, Any]) -> list[Repeated]:
    """The repeated splits: all shots of a modality together, the means over modalities last."""
    groups: dict[tuple[str | None, int | None], list[Mapping[str, Any]]] = {}
    for row in metrics.get("repeats", ()):
        groups.setdefault((row["modality"], row["shots"]), []).append(row)
    modalities = {modality for modality, _ in groups if modality is not None}
    media = modalities - {"text"} or modalities
    found = [
        Repeated(
            modality or f"mean of {len(media)}",
            shots,
            rows[0]["n_splits"],
            {
                row["method"]: ModelShare(
                    row["top1"],
                    row["top1_low"],
                    row["top1_high"],
                    *(row.get(name) for name in ("lead", "lead_low", "lead_high")),
                )
                for row in rows
            },
        )
        for (modality, shots), rows in groups.items()
    ]
    order = [*MODALITIES]
    return sorted(
        found,
        key=lambda each: (each.modality not in order, place(MODALITIES, each.modality), each.shots or 0),
    )


def _repeat_lines(metrics: Mapping[str, Any]) -> list[str]:
    rows = repeated(metrics)
    if not rows:
        return []
    methods = [name for name in METHOD_TITLES if any(name in row.shares for row in rows)]
    table = [["", "shots", *(METHOD_TITLES[name] for name in methods)]]
    last = rows[-1].modality
    for row in [row for row in rows if row.shots is None or row.modality == last]:
        cells = [_mean_cell(row.shares[name]) if name in row.shares else "-" for name in methods]
        table.append([f"  {row.modality}", "all" if row.shots is None else str(row.shots), *cells])
    whole = [row for row in rows if row.shots is None]
    return [
        "",
        f"{counted(rows[0].n_splits, 'split')} drawn again by object, each trained and measured"
        " (top-1 % of seen categories; mean and 95% interval over splits)",
        "",
        *aligned(table),
        "",
        *([whole[-1].to_text()] if whole and whole[-1].to_text() else []),
    ]


def _mean_cell(share: ModelShare) -> str:
    interval = "" if share.low is None else f" [{percent(share.low)}-{percent(share.high or 0.0)}]"
    return f"{percent(share.top1)}{interval}"
