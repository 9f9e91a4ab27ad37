"""Our number beside the paper's: read a run's results, average them over folds, and print the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from data.benchmarks import Benchmark
from data.files import write_json
from data.sample import Reject, Sample
from data.show import aligned, visible
from kb_builder.tables.schemas import read_columns
from pipeline.accuracies import Accuracy, percent, recognition_rows
from pipeline.project import ProjectFile

# Rejects of these stages have no vector and are not scored.
_UNSCORED = ("ingest", "encode")


@dataclass(frozen=True)
class Outcome:
    """The results of one run, of one fold or the whole: accuracies as fractions, None where not measured.

    `n` of the `n_test` test samples were scored; `quarantined` counts unreadable files by split.
    `without_train` test samples are of categories without a train sample, which fine-tuning cannot score.
    """

    fold: int | None
    n_test: int
    n_categories: int
    n: int
    quarantined: dict[str, int]
    names: Accuracy | None  # zero-shot, bare category names
    zero_shot: Accuracy | None
    probe: Accuracy | None
    fine_tuned: Accuracy | None
    without_train: int = 0
    notes: tuple[str, ...] = ()
    rejects: tuple[Reject, ...] = ()  # each quarantined sample with its reason


def outcome(
    metrics: Mapping[str, Any],
    project: ProjectFile,
    samples: Sequence[Sample],
    rejects: Sequence[Reject],
    *,
    modality: str,
    fold: int | None,
    notes: tuple[str, ...] = (),
) -> Outcome:
    """Read a run's results. `rejects` are samples that were rejected before its manifest was written."""
    split_of = {sample.sample_id: sample.split for sample in samples}
    reasons = {reject.sample_id: reject for reject in (*rejects, *_rejected(project.kb))}
    bad = {sample_id for sample_id in reasons if sample_id in split_of}
    trained = bool(metrics.get("parameters"))
    split = "seen" if trained else "unseen"

    def row_of(key: str) -> Any:
        rows = recognition_rows(metrics, key)
        return next((row for row in rows if row.modality == modality and row.split == split), None)

    zero_shot, aligned, probe = (row_of(key) for key in ("zero_shot", "recognition", "probe"))
    scored = aligned or zero_shot
    quarantined = {
        each: sum(split_of.get(sample_id) == each for sample_id in bad) for each in ("train", "val", "test")
    }
    n_test = sum(each == "test" for each in split_of.values())
    n = scored.n if scored else 0
    return Outcome(
        fold=fold,
        n_test=n_test,
        n_categories=len({sample.category_id for sample in samples if sample.split == "test"}),
        n=n,
        quarantined={each: count for each, count in quarantined.items() if count},
        names=zero_shot.controls.get("class_name") if zero_shot else None,
        zero_shot=zero_shot.centers if zero_shot else None,
        probe=probe.controls.get("linear_probe") if probe else None,
        fine_tuned=aligned.centers if trained and aligned else None,
        without_train=n_test - quarantined["test"] - n,
        notes=notes,
        rejects=tuple(reasons[sample_id] for sample_id in sorted(bad)),
    )


def _rejected(kb: Path) -> list[Reject]:
    """The samples without a vector."""
    found: list[Reject] = []
    for stage in _UNSCORED:
        path = kb / "rejects" / f"{stage}.parquet"
        if path.exists():
            rows = read_columns(path, ["sample_id", "stage", "reason"], hint="unibind run").to_pylist()
            found += [Reject(**row) for row in rows]
    return found


@dataclass(frozen=True)
class ResultLine:
    """One line of the table. Ours: the mean over folds, its interval (one fold) or deviation (several)."""

    setting: str
    model: str
    ours: float | None
    low: float | None
    high: float | None
    deviation: float | None
    paper: float | None  # in percent, as printed there

    def cells(self, *, comparable: bool = True) -> list[str]:
        """The line as texts; the paper's number is in brackets where ours is not comparable with it."""
        if self.ours is None:
            ours = "–"
        elif self.low is not None and self.high is not None:
            ours = f"{percent(self.ours)} [{percent(self.low)}–{percent(self.high)}]"
        else:
            ours = f"{percent(self.ours)} ± {percent(self.deviation or 0.0)}"
        paper = "–" if self.paper is None else f"{self.paper:.2f}"
        return [self.setting, self.model, ours, paper if comparable or paper == "–" else f"({paper})"]


@dataclass(frozen=True)
class Result:
    """The outcomes of all folds that were run, and what is needed to compare them with the paper's.

    `apart`: why they must not be compared with the paper's numbers; empty where they may.
    """

    benchmark: Benchmark
    outcomes: tuple[Outcome, ...]
    encoder: str
    describer: str
    texts: int
    marks: tuple[str, ...]
    apart: tuple[str, ...] = ()

    def lines(self) -> list[ResultLine]:
        """The four lines of the paper's table; the fine-tuned ones only if heads were trained."""
        paper = self.benchmark.paper
        lines = [
            self._line("zero-shot", "bare category names", lambda o: o.names, paper.zero_shot_base),
            self._line("zero-shot", "UniBind", lambda o: o.zero_shot, paper.zero_shot_unibind),
        ]
        if any(each.fine_tuned or each.probe for each in self.outcomes):
            lines += [
                self._line("fine-tuned", "linear probe", lambda o: o.probe, paper.fine_tuned_probe),
                self._line("fine-tuned", "UniBind", lambda o: o.fine_tuned, paper.fine_tuned_unibind),
            ]
        return lines

    def _line(
        self, setting: str, model: str, of: Callable[[Outcome], Accuracy | None], paper: float | None
    ) -> ResultLine:
        found = [accuracy for each in self.outcomes if (accuracy := of(each)) is not None]
        if not found or len(found) < len(self.outcomes):  # no mean over only some of the folds
            return ResultLine(setting, model, None, None, None, None, paper)
        if len(found) == 1:
            return ResultLine(setting, model, found[0].top1, found[0].low, found[0].high, None, paper)
        values = [accuracy.top1 for accuracy in found]
        return ResultLine(setting, model, fmean(values), None, None, stdev(values), paper)

    def to_text(self) -> str:
        """The table for the terminal, with the rules and all differences from the paper's setting."""
        base = self.benchmark.paper.base
        comparable = not self.apart
        rows = [line.cells(comparable=comparable) for line in self.lines()]
        table = [["", "", "ours", "the paper" if comparable else "(the paper)"], *rows]
        first, many = self.outcomes[0], len(self.outcomes) > 1
        categories = max(each.n_categories for each in self.outcomes)
        head = f"{self.benchmark.title}: {self.benchmark.modality}, {categories:,} categories; top-1 %,"
        spread = f"mean of {len(self.outcomes)} folds ± deviation" if many else "[95% interval]"
        lines = [
            f"{head} {spread}",
            *aligned(table, left=(0, 1), indent="  "),
            *([f"no comparison with the paper: {'; '.join(self.apart)}"] if self.apart else []),
            self._over(),
            f"encoder: {self.encoder}, texts: {self.texts} per category by {self.describer};"
            f" the paper's numbers are with {base}",
            f"split: {self.benchmark.split_rule}",
            f"metric: {self.benchmark.metric_rule}",
            *(f"note: {note}" for note in first.notes),
            *(f"MARKED: {mark}" for mark in self.marks),
        ]
        return "\n".join(map(visible, lines))

    def _over(self) -> str:
        """The numbers of scored and quarantined samples, and the effect of counting the latter as errors."""
        n, n_test = sum(each.n for each in self.outcomes), sum(each.n_test for each in self.outcomes)
        text = f"over {n:,} of {n_test:,} test samples"
        bad = {
            split: sum(each.quarantined.get(split, 0) for each in self.outcomes)
            for split in ("test", "train", "val")
        }
        text += f"; quarantined: {bad['test']:,}"
        if bad["train"] or bad["val"]:
            text += f" ({bad['train'] + bad['val']:,} more in train and val)"
        if bad["test"]:
            shares = [each.n / (each.n + each.quarantined.get("test", 0)) for each in self.outcomes]
            text += f"; counted as errors they would multiply each number by {fmean(shares):.4f}"
        missing = sum(each.without_train for each in self.outcomes)
        if missing:
            text += f"; {missing:,} not scored: no train sample of their category"
        first = next((reject for each in self.outcomes for reject in each.rejects), None)
        if first:
            where = "" if first.sample_id in first.reason else f"{first.sample_id}: "
            text += f". The first: {where}{first.reason} (all are in the JSON file)"
        return text

    def write(self, path: Path) -> None:
        """The same as JSON: accuracies as fractions, the paper's in percent as it prints them."""
        write_json(
            path,
            {
                "benchmark": self.benchmark.name,
                "encoder": self.encoder,
                "describer": self.describer,
                "texts": self.texts,
                "paper_base": self.benchmark.paper.base,
                "split_rule": self.benchmark.split_rule,
                "metric_rule": self.benchmark.metric_rule,
                "marks": list(self.marks),
                "comparable": not self.apart,
                "not_comparable_since": list(self.apart),
                "rows": self.lines(),
                "outcomes": list(self.outcomes),
            },
        )
