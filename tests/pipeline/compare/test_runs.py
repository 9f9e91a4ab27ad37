"""Comparing runs: joined by sample, paired by object, told in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.errors import InputError
from data.files import write_json
from pipeline.compare.questions import Run
from pipeline.compare.runs import compare, open_run, verdict
from pipeline.compare.text import comparison_text
from tests.commands import Told, in_process
from trainer.evaluate.intervals import lead
from trainer.evaluate.outcomes import NAMED, RANKS, write_outcomes

OBJECTS = 80


def _write(folder: Path, skill: float, seed: int = 0, *, objects: int = OBJECTS) -> Path:
    """A run whose answers are right with a probability; what is hard for one is hard for all."""
    hard = np.random.default_rng(99).random((objects, 2))
    luck = np.random.default_rng(seed).normal(0, 0.1, (objects, 2))
    right = hard + luck < skill
    named, ranks = [], []
    for o in range(objects):
        for m, modality in enumerate(("image", "audio")):
            sample = {"sample_id": f"o{o}-{modality}", "object_id": f"o{o}" if o % 4 else None}
            row = {
                "model": "aligned",
                "split": "seen",
                "modality": modality,
                "category_id": "a",
                "named": "a",
            }
            for anchors in ("llm_centers", "permuted"):
                hit = bool(right[o, m]) and anchors == "llm_centers"
                named.append({**row, **sample, "anchors": anchors, "hit": hit, "hit5": True})
            rank = 3 if right[o, m] else 40
            query = {"query": modality, "gallery": "audio" if m == 0 else "image", "level": "category"}
            ranks.append({"model": "aligned", **query, **sample, "rank": rank})
    write_outcomes(
        folder, pa.Table.from_pylist(named, schema=NAMED), pa.Table.from_pylist(ranks, schema=RANKS)
    )
    recognition = [
        {"model": "aligned", "modality": m, "split": "seen", "chance": 0.1} for m in ("image", "audio")
    ]
    balance = [{"measure": "modality_gap_mean", "anchors": "aligned", "value": skill}]
    gain = {
        "model": "aligned",
        "split": "seen",
        "class_name": 0.5,
        "p": 0.5,
        "n": 80,
        "name_free": 0.5 + skill,
    }
    gain |= {"gain": skill, "gain_low": skill - 0.1, "gain_high": skill + 0.1, "without_texts": 0}
    gain |= {"texts_mean": 9.0, "texts_least": 8, "texts_most": 10}
    other = [{**gain, "modality": None, "model": "zero_shot"}, {**gain, "modality": None, "split": "unseen"}]
    name_free = [{**gain, "modality": "image", "gain": 0.0}, {**gain, "modality": None}, *other]
    write_json(
        folder / "metrics.json",
        {"dataset": folder.name, "recognition": recognition, "balance": balance, "name_free": name_free},
    )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """A middling run, a far better one, and one that is like the first."""
    skills = {"base": (0.5, 0), "better": (0.8, 1), "like": (0.51, 2)}
    return [open_run(_write(tmp_path / name, *skill)) for name, skill in skills.items()]


def test_lines_are_paired_by_sample_and_object(runs: list[Run]) -> None:
    """Top-1, difference, interval and p are those of `lead` on the joined samples; the mean is theirs."""
    found = compare(runs[:2], resamples=4000)
    lines = {(line.measure, line.modality): line for line in found.lines}
    for modality in ("image", "audio"):
        line = lines["top1", modality]
        first, second = (run.named.filter(pc.equal(run.named["modality"], modality)) for run in runs[:2])
        objects = pc.rank(pc.coalesce(first["object_id"], first["sample_id"]), tiebreaker="dense")
        expected = lead(
            second["hit"].to_numpy(), first["hit"].to_numpy(), objects.to_numpy(), resamples=4000, seed=0
        )
        assert (line.difference, line.p) == (pytest.approx(expected.value), pytest.approx(expected.p))
        assert (line.low, line.high) == (
            pytest.approx(expected.low, abs=0.02),
            pytest.approx(expected.high, abs=0.02),
        )
        assert (line.n, line.verdict, line.p_holm) == (OBJECTS, "better", line.p)
    assert [(row["split"], row["run"], row["gain"]) for row in found.descriptions] == [
        ("seen", "base", 0.5),
        ("seen", "better", 0.8),
        ("unseen", "base", 0.5),
        ("unseen", "better", 0.8),
    ]
    mean = lines["top1", None]
    assert mean.value == pytest.approx((lines["top1", "image"].value + lines["top1", "audio"].value) / 2)
    assert mean.low < mean.difference < mean.high


def test_retrieval_is_compared_by_mean_and_worst_pair(runs: list[Run]) -> None:
    """recall@10 over the two pairs of modalities: 3 is within ten, 40 is not."""
    lines = {line.measure: line for line in compare(runs[:2]).lines if line.group == "category"}
    recalls = [
        [
            np.mean(run.ranks.filter(pc.equal(run.ranks["query"], query))["rank"].to_numpy() <= 10)
            for query in ("image", "audio")
        ]
        for run in runs[:2]
    ]
    assert (lines["r10_mean"].first, lines["r10_mean"].value) == pytest.approx(tuple(map(np.mean, recalls)))
    assert (lines["r10_worst"].first, lines["r10_worst"].value) == pytest.approx(tuple(map(min, recalls)))
    assert {line.verdict for line in lines.values()} == {"better"}


def test_three_runs_are_corrected_and_equal_ones_are_not_told_apart(runs: list[Run]) -> None:
    """Holm over the runs beside the first; luck is called what it is."""
    found = compare(runs)
    image = {line.run: line for line in found.lines if line.modality == "image"}
    assert image["better"].p_holm == pytest.approx(2 * image["better"].p)
    assert image["like"].verdict == "no difference that these samples can show"
    values = {"base": 0.5, "better": 0.8, "like": 0.51}
    assert found.balance == tuple(
        {"measure": "modality_gap_mean", "run": run, "value": value} for run, value in values.items()
    )


def test_samples_of_one_run_only_are_counted(tmp_path: Path, runs: list[Run]) -> None:
    """They are left out of every number, and told."""
    small = open_run(_write(tmp_path / "small", 0.8, seed=1, objects=50))
    found = compare([runs[0], small])
    assert [run["left_out"] for run in found.runs] == [2 * (OBJECTS - 50), 0]
    assert {line.n for line in found.lines if line.modality} == {50}


def test_unequal_tasks_are_noted(runs: list[Run]) -> None:
    """Another number of candidates, or training in one run only, is said."""
    rows = [{**row, "chance": 0.5} for row in runs[1].metrics["recognition"]]
    other = replace(runs[1], model="zero_shot", metrics={**runs[1].metrics, "recognition": rows})
    notes = "; ".join(compare([runs[0], other]).notes)
    assert "another number of candidate categories than base on seen" in notes
    assert "base aligned, better zero_shot" in notes


@pytest.mark.parametrize(
    ("low", "high", "p", "words"),
    [
        (0.01, 0.2, 0.01, "better"),
        (-0.2, -0.01, 0.01, "worse"),
        (0.01, 0.2, 0.06, "no difference that these samples can show"),
        (-0.01, 0.2, 0.01, "no difference that these samples can show"),
    ],
)
def test_a_verdict_needs_interval_and_p(low: float, high: float, p: float, words: str) -> None:
    """Only where both agree is a difference told."""
    assert verdict(low, high, p) == words


def _without_labels(run: Run, chance: float = 0.1) -> Run:
    """The same answers as a zero-shot run has them: all unseen, among all categories, and a few more."""
    place = run.named.schema.get_field_index("split")
    more = run.named.slice(0, 6)
    ids = pa.array([f"train-{number}" for number in range(6)])
    more = more.set_column(more.schema.get_field_index("sample_id"), NAMED.field("sample_id"), ids)
    named = pa.concat_tables([run.named, more])
    named = named.set_column(place, NAMED.field("split"), pa.array(["unseen"] * len(named)))
    rows = [
        {**row, "model": "zero_shot", "split": "unseen", "chance": chance}
        for row in run.metrics["recognition"]
    ]
    return replace(run, model="zero_shot", named=named, metrics={**run.metrics, "recognition": rows})


@pytest.mark.parametrize("untrained_first", [True, False])
def test_a_zero_shot_run_is_compared_with_a_trained_one(runs: list[Run], untrained_first: bool) -> None:
    """What the one calls unseen, for it used no label, is paired with what the other calls seen."""
    pair = [_without_labels(runs[0]), runs[1]]
    found = compare(pair if untrained_first else pair[::-1])
    usual = {(line.modality, line.measure): line for line in compare(runs[:2]).lines}
    sign = 1 if untrained_first else -1
    for line in found.lines:
        same = usual[line.modality, line.measure]
        assert (line.group, line.n) == (same.group, same.n)
        assert line.difference == pytest.approx(sign * same.difference)
        assert line.p == pytest.approx(same.p, abs=0.02)
    assert [line.group for line in found.lines if line.measure == "top1"] == ["seen"] * 3
    assert sorted(run["left_out"] for run in found.runs) == [0, 6]
    notes = "; ".join(found.notes)
    assert "base used no label, so it was measured on samples of every split, among all categories" in notes
    assert "the samples that better measured too" in notes
    assert "some runs are trained and some are not" in notes
    assert "the tasks differ" not in notes


def test_a_zero_shot_run_beside_unseen_categories(runs: list[Run]) -> None:
    """It is paired with `unseen_among_all`, which has the same candidates, and with `seen`, which has fewer:
    that is said; not with `unseen`."""
    place = runs[1].named.schema.get_field_index("split")
    half = len(runs[1].named) // 2
    own = runs[1].named
    tables = [own.slice(0, half)] + [
        own.slice(half).set_column(place, NAMED.field("split"), pa.array([split] * (len(own) - half)))
        for split in ("unseen", "unseen_among_all")
    ]
    rows = [
        {"model": "aligned", "modality": modality, "split": split, "chance": chance}
        for modality in ("image", "audio")
        for split, chance in (("seen", 0.2), ("unseen", 0.2), ("unseen_among_all", 0.1))
    ]
    trained = replace(
        runs[1], named=pa.concat_tables(tables), metrics={**runs[1].metrics, "recognition": rows}
    )
    found = compare([_without_labels(runs[0]), trained])
    groups = {(line.group, line.modality): line.n for line in found.lines if line.measure == "top1"}
    assert groups == {
        (split, m): half // 2 for split in ("seen", "unseen_among_all") for m in ("image", "audio")
    } | {(split, None): half for split in ("seen", "unseen_among_all")}
    (unequal,) = [note for note in found.notes if "the tasks differ" in note]
    assert unequal.startswith("better had another number of candidate categories than base on seen: ")


def test_another_category_of_the_same_sample_is_noted(runs: list[Run]) -> None:
    """Where labels changed between two runs, right is not the same in both."""
    place = runs[1].named.schema.get_field_index("category_id")
    labels = runs[1].named["category_id"].to_pylist()
    changed = pa.array(["b" if number < 3 else label for number, label in enumerate(labels)])
    other = replace(runs[1], named=runs[1].named.set_column(place, NAMED.field("category_id"), changed))
    (note,) = compare([runs[0], other]).notes
    assert note.startswith(
        "3 samples have another category in better than in base, such as 'o0-audio' ('b', not 'a')"
    )


def test_centers_that_hold_the_name_are_said(runs: list[Run]) -> None:
    """In the JSON of every run, in the head of the text, and as a note where only some do."""
    other = replace(runs[1], metrics={**runs[1].metrics, "with_name": True})
    found = compare([runs[0], other])
    assert [run["with_name"] for run in found.runs] == [False, True]
    assert "the centers of better include the bare category names; the others' do not" in found.notes
    assert "(aligned, LLM centers + name)" in comparison_text(found)


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, runs: list[Run]) -> None:
    """One run alone, a folder without metrics, other data, a damaged table."""
    with pytest.raises(InputError, match="a single run"):
        compare(runs[:1])
    with pytest.raises(InputError, match=r"no metrics\.json"):
        open_run(tmp_path)
    renamed = runs[1].named.set_column(4, "sample_id", pa.array([f"x{i}" for i in range(len(runs[1].named))]))
    stranger = replace(runs[1], named=renamed, ranks=runs[1].ranks.slice(0, 0))
    with pytest.raises(InputError, match="no sample in common"):
        compare([runs[0], stranger])
    with pytest.raises(InputError, match=f"base has {2 * OBJECTS} samples, such as 'o0-audio'; better has"):
        compare([runs[0], stranger])
    split = pa.array(["unseen_among_all"] * len(runs[1].named))
    elsewhere = runs[1].named.set_column(1, NAMED.field("split"), split)
    stranger = replace(runs[1], named=elsewhere, ranks=runs[1].ranks.slice(0, 0))
    with pytest.raises(
        InputError, match="base has audio seen, image seen; better has audio unseen among all"
    ):
        compare([runs[0], stranger])
    empty = replace(runs[1], named=runs[1].named.slice(0, 0), ranks=runs[1].ranks.slice(0, 0))
    with pytest.raises(InputError, match="better: no labelled sample was measured"):
        compare([runs[0], empty])
    with pytest.raises(InputError, match="base: named twice"):
        compare([runs[0], runs[0]])
    (runs[1].folder / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        open_run(runs[1].folder)
    (runs[0].folder / "ranks.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="damaged"):
        open_run(runs[0].folder)
    (runs[0].folder / "ranks.parquet").unlink()
    with pytest.raises(InputError, match="missing; run `unibind evaluate` again"):
        open_run(runs[0].folder)


def test_the_command_prints_text_and_json(tmp_path: Path, runs: list[Run]) -> None:
    """`unibind compare A B` by folder and by project file; a mistake is one line and exit 1."""
    project = tmp_path / "unibind.toml"
    project.write_text('name = "better"\n[data]\nmanifest = "m.csv"\n')
    _write(tmp_path / "runs" / "better", 0.8, seed=1)

    def unibind(*places: str | Path) -> Told:
        return in_process("compare", *map(str, places), folder=tmp_path)

    done = unibind(runs[0].folder, project)
    assert "better beside base" in done.out, done.err
    value = json.loads(unibind(runs[0].folder, project, "--json").out)
    assert {line["verdict"] for line in value["lines"]} == {"better"}
    failed = unibind(runs[0].folder, tmp_path / "nowhere")
    assert (failed.status, failed.err.count("\n")) == (1, 1)
    assert "no metrics.json" in failed.err
