"""The report's first pages: the headline, recognition beside its controls, what was run, what was trained.

Everything here is read from `metrics` alone; the comparison itself is pipeline/table.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report_html import Child, Html, el, join, line, section, table
from pipeline.report_plot import accuracy_plots
from pipeline.table import (
    CENTERS,
    Accuracy,
    Mean,
    Row,
    anchor_names,
    anchor_title,
    media,
    model_title,
    percent,
    recognition_rows,
    split_mean,
    split_title,
    verdict,
)
from trainer.settings import Scorer

# How each scorer names a category: as a rule, and as the headline's subject.
_SCORERS = {
    "nearest": ("nearest center", "the nearest LLM-written center names"),
    "logsumexp": (
        "soft maximum over each category’s centers (logsumexp)",
        "the soft maximum over the LLM-written centers names",
    ),
    "mean": ("mean of each category’s centers", "the mean of the LLM-written centers names"),
    "medoid": ("each category’s most central center (medoid)", "the most central LLM-written center names"),
}
_MODELS = {"aligned": "aligned heads", "zero_shot": "zero-shot"}
_TRANSDUCTIVE = (
    "Transductive: unlabelled samples of every split, the test split too, helped to choose the centers. "
    "Do not compare these numbers with those of runs that never saw the test samples."
)


def scorer_of(metrics: Mapping[str, Any]) -> Scorer:
    """The scorer that the run was measured with; `nearest` where nothing could be scored."""
    scorers: list[Scorer] = [row["scorer"] for row in metrics.get("recognition", ())]
    return scorers[0] if scorers else "nearest"


def headline(metrics: Mapping[str, Any]) -> Html:
    """One honest sentence with the number that matters most, one on the controls; warnings stand before."""
    warning = el("p", el("strong", _TRANSDUCTIVE)) if metrics.get("transductive") else ""
    return join([warning, _lead(metrics)])


def _lead(metrics: Mapping[str, Any]) -> Html:
    rows = recognition_rows(metrics)
    split = "unseen" if any(row.split == "unseen" and row.centers for row in rows) else "seen"
    mean = split_mean([row for row in rows if row.centers], split)
    if mean is None:
        return el("p", "Nothing was recognised: the run had no labelled sample to score.", class_="lead")
    untrained = all(row.model == "zero_shot" for row in rows)
    what = {
        ("unseen", False): "On categories that no training sample came from",
        ("unseen", True): "Without any training, and with no label used but for scoring",
        ("seen", False): "On test samples of the trained categories (none was held out whole)",
        ("seen", True): "Without training, with labels used only to choose the centers",
    }[split, untrained]
    top1 = mean.top1[CENTERS]
    of = f"mean of {len(mean.modalities)} modalities" if len(mean.modalities) > 1 else mean.modalities[0]
    first = join(
        [
            f"{what}, {_SCORERS[scorer_of(metrics)][1]} the right category in ",
            el("strong", f"{percent(top1)}%"),
            f" of {mean.n} samples ({of}); chance is {percent(mean.chance)}%. ",
        ]
    )
    return el("p", first, _best_control(mean), class_="lead")


def _best_control(mean: Mean) -> str:
    """What the best control scores in the place of the LLM centers, on the same mean."""
    controls = {name: top1 for name, top1 in mean.top1.items() if name != CENTERS}
    if not controls:
        return "No control was measured."
    best = max(controls, key=lambda name: controls[name])
    beaten = controls[best] < mean.top1[CENTERS]
    outcome = "less than the LLM centers" if beaten else "the LLM centers do not beat it"
    return f"The best control, {anchor_title(best)}, reaches {percent(controls[best])}%: {outcome}."


def recognition_section(metrics: Mapping[str, Any]) -> Html:
    """Recognition of the run's model: the verdict, the picture, the table."""
    rows = recognition_rows(metrics)
    if not rows:
        return section("recognition", "Recognition", el("p", "No labelled sample could be scored."))
    return section(
        "recognition",
        "Recognition, beside its controls",
        el("p", f"Model: {model_title(rows)}. Rule: {_SCORERS[scorer_of(metrics)][0]}.", class_="sub"),
        el("ul", *(el("li", sentence) for sentence in verdict(rows))),
        accuracy_plots(rows),
        _result_table(rows),
        _fine_print(rows),
    )


def zero_shot_section(metrics: Mapping[str, Any]) -> Html:
    """The same for the untrained encoder that shares the text space, unless that is the run's own model."""
    rows, own = recognition_rows(metrics, "zero_shot"), recognition_rows(metrics)
    if not rows:
        words = "The run had no encoder that shares the text space without training."
        return section("zero-shot", "Zero-shot, without training", el("p", words))
    if own and all(row.model == "zero_shot" for row in own):
        words = "This run was not trained: its table above is the zero-shot table."
        return section("zero-shot", "Zero-shot, without training", el("p", words))
    modalities = ", ".join(dict.fromkeys(row.modality for row in rows))
    return section(
        "zero-shot",
        "Zero-shot, without training",
        el(
            "p",
            "The same samples and centers, but no head: the frozen encoder that shares the text space "
            f"answers, for {modalities}.",
        ),
        el("ul", *(el("li", sentence) for sentence in verdict(rows))),
        _result_table(rows),
    )


def calibration_section(metrics: Mapping[str, Any]) -> Html:
    """How far probabilities can be believed, before and after a temperature was fitted."""
    found = metrics.get("calibration", ())
    if not found:
        words = (
            "Not measured: that takes labelled samples in the val split, to fit on, and in the test split."
        )
        return section("calibration", "Calibration", el("p", words))
    rows = [
        [
            row["modality"],
            _MODELS[row["model"]],
            split_title(row["split"]),
            _decimals(row["temperature"], 4),
            *(_decimals(row[name], 3) for name in ("nll_before", "nll", "ece_before", "ece")),
            str(row["n_fit"]),
            str(row["n"]),
        ]
        for row in found
    ]
    words = (
        "A probability is the softmax of the categories’ scores over a temperature, which the val split "
        "fits for each modality and model; `unibind predict` uses it. NLL is the mean negative "
        "log-likelihood, ECE the expected calibration error (15 bins): the mean distance between how sure "
        "the answers are and how often they are right. Before: temperature 1. A temperature fitted on "
        "trained categories may be far too sure of others: compare the rows. No temperature: the val samples "
        "were all named rightly, or no better than by chance."
    )
    head = ["", "model", "samples", "temperature", "NLL before", "NLL", "ECE before", "ECE", "n val", "n"]
    return section(
        "calibration", "Calibration", el("p", words, class_="sub"), table("lllrrrrrrr", head, rows)
    )


def _decimals(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def stages_section(metrics: Mapping[str, Any]) -> Html:
    """Which stages ran, and for how long."""
    stages = metrics.get("stages", ())
    longest = max((stage["seconds"] for stage in stages), default=0.0) or 1.0
    rows = [
        [
            stage["name"],
            f"{stage['seconds']:.1f}",
            el("span", class_="bar" + (" rest" if stage["skipped"] else ""), style=_share(stage, longest)),
            "skipped: nothing had changed; the time is that of its last run" if stage["skipped"] else "",
        ]
        for stage in stages
    ]
    total = sum(stage["seconds"] for stage in stages if not stage["skipped"])
    told = (
        f"{total:,.1f} seconds of work"
        if any(not stage["skipped"] for stage in stages)
        else "nothing was run anew"
    )
    facts = [f"Data set {metrics['dataset']}"] if "dataset" in metrics else []
    facts += [f"seed {metrics['seed']}"] if "seed" in metrics else []
    return section(
        "stages",
        "What was run",
        el("p", f"{', '.join([*facts, told])}.", class_="sub"),
        table("lrll", ["stage", "seconds", "", ""], rows) if rows else "",
    )


def parameters_section(metrics: Mapping[str, Any]) -> Html:
    """What was trained, against what was left frozen."""
    rows = [
        [
            row["modality"],
            f"{row['head']:,}",
            f"{row['encoder']:,}" if row["encoder"] else "not known",
            f"{100 * row['ratio']:.1f}%" if row["ratio"] is not None else "–",
        ]
        for row in metrics.get("parameters", ())
    ]
    if not rows:
        return section("parameters", "Parameters", el("p", "Nothing was trained."))
    words = "Each modality has one linear head into the text space; the encoders stay frozen."
    head = ["modality", "trained", "frozen encoder", "trained share"]
    return section("parameters", "Parameters", el("p", words), table("lrrr", head, rows))


def _share(stage: Mapping[str, Any], longest: float) -> str:
    return f"width:{12 * stage['seconds'] / longest:.2f}rem"


def _fine_print(rows: Sequence[Row]) -> Html:
    counts = {
        name: sorted({row.cells()[name].k for row in rows if name in row.cells()})
        for name in anchor_names(rows)
    }
    told = ", ".join(
        f"{anchor_title(name)} {ks[0]}" if len(ks) == 1 else f"{anchor_title(name)} {ks[0]}–{ks[-1]}"
        for name, ks in counts.items()
    )
    return el(
        "p",
        "Class name: the bare name. Templates: the name in prompt templates. Random words: the name with "
        "words drawn at random. Permuted: another category’s LLM centers. "
        f"Texts per category at most: {told}. Intervals are by bootstrap. Both sides of a row "
        "are measured on the same samples: where intervals do not overlap, the difference is very likely "
        "real; where they do, it may be the luck of these samples. An interval of no width (all right or all "
        "wrong) says little where n is small.",
        class_="note",
    )


def _result_table(rows: Sequence[Row]) -> Html:
    names = anchor_names(rows)
    columns = f"l{'r' * (len(names) + 2)}l"
    body: list[Html] = []
    for split in dict.fromkeys(row.split for row in rows):
        block = [row for row in rows if row.split == split]
        body.append(el("tr", el("th", split_title(split), colspan=len(columns)), class_="group"))
        body += [line(columns, _table_row(row, names)) for row in block]
        mean = split_mean(block, split)
        if mean is not None and len(mean.modalities) > 1:
            numbers = [percent(mean.top1[name]) if name in mean.top1 else "–" for name in names]
            title = f"mean of {len(mean.modalities)}"
            body.append(
                line(columns, [title, *numbers, percent(mean.chance), str(mean.n), ""], class_="mean")
            )
    caption = (
        "Top-1 accuracy in percent, with its 95% interval. Bold: the best of the row. Marked: a control at "
        "or above the LLM centers; named at the right, bold where the intervals are apart."
    )
    if len(media(rows)) < len(rows):
        caption += " Means leave text out, which starts inside the text space."
    head = ["", *(anchor_title(name) for name in names), "chance", "n", "not beaten"]
    return el("div", table(columns, head, body, caption=caption), class_="pinned")


def _table_row(row: Row, names: Sequence[str]) -> list[Child]:
    cells, best, warned, sure = row.cells(), row.best(), row.not_beaten(), row.clearly_above()
    numbers = [
        _number(name, cells[name], best=best, warned=warned) if name in cells else "–" for name in names
    ]
    told = [el("b" if name in sure else "span", anchor_title(name)) for name in warned]
    tag = el("span", join(told, ", "), class_="tag") if told else ""
    return [row.modality, *numbers, percent(row.chance), str(row.n), tag]


def _number(name: str, cell: Accuracy, *, best: Sequence[str], warned: Sequence[str]) -> Html:
    classes = [
        kind
        for kind, is_so in (("best", name in best), ("center", name == CENTERS), ("over", name in warned))
        if is_so
    ]
    number = el("span", percent(cell.top1), class_=" ".join(classes) or None)
    return join([number, el("span", f"{percent(cell.low)}–{percent(cell.high)}", class_="ci")])
