"""The whole of stage 2 on the planted world: centers carry over to unseen categories, permuted do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import TrainingError
from data.files import write_json
from kb_builder.tables.schemas import CATEGORIES, CONTROLS, SAMPLES, read_columns, read_rows, write_table
from trainer.align.heads import load_heads
from trainer.align.train import train
from trainer.evaluate.measure import evaluate, measure
from trainer.evaluate.outcomes import NAMED, RANKS
from trainer.inputs import open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.settings import Evaluate, Localize, Scorer, Train

MakeKb = Callable[..., Path]
SETTINGS = Evaluate(bootstrap=200, few_shot=(2,), stacking_folds=2, repeats=1)


def _top1(rows: list[dict[str, Any]], split: str, anchors: str) -> float:
    """The mean over the modalities that are not text."""
    return float(
        np.mean(
            [
                row["top1"]
                for row in rows
                if (row["split"], row["anchors"]) == (split, anchors) and row["modality"] != "text"
            ]
        )
    )


def test_from_texts_to_numbers(make_kb: MakeKb, tmp_path: Path) -> None:
    """Localize, train, evaluate: unseen categories are named far above chance, by permuted centers not."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=20, batch_size=48, learning_rate=0.02))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    json.dumps(metrics, allow_nan=False)
    rows = metrics["recognition"]
    assert {row["model"] for row in rows} == {"aligned"}
    assert _top1(rows, "seen", "llm_centers") > 0.8
    assert _top1(rows, "unseen", "llm_centers") > 0.8  # chance is 1/3
    assert _top1(rows, "unseen_among_all", "llm_centers") > 3 / 12
    assert _top1(rows, "seen", "permuted") < 0.3
    assert _top1(rows, "unseen_among_all", "permuted") < 0.3
    assert _top1(rows, "seen", "llm_centers") > _top1(rows, "seen", "random_words")

    assert len(rows) == 4 * 4 * 6  # modalities × splits × anchors
    assert {(row["anchors"], row["k"]) for row in rows} == {
        ("llm_centers", 5),
        ("class_name", 1),
        ("templates", 5),
        ("random_words", 5),
        ("permuted", 5),
        ("name_free", 6),  # the name and its five
    }
    assert {(row["split"], row["chance"], row["n"]) for row in rows} == {
        ("seen", 1 / 9, 18),
        ("unseen", 1 / 3, 30),
        ("seen_among_all", 1 / 12, 18),
        ("unseen_among_all", 1 / 12, 30),
    }

    assert {(row["modality"], row["model"]) for row in metrics["zero_shot"]} == {
        ("image", "zero_shot"),
        ("text", "zero_shot"),
    }
    assert len(metrics["retrieval"]) == 4 * 3 * 2
    assert {row["n"] for row in metrics["retrieval"]} == {48}
    assert "modality_probe_accuracy" in {row["measure"] for row in metrics["balance"]}
    assert metrics["parameters"] == [
        # Into the eight dimensions of the shared space.
        *(
            {"modality": m, "head": 8 * 41, "encoder": 98400, "ratio": 8 * 41 / 98400}
            for m in ("audio", "image", "point")
        ),
        {"modality": "text", "head": 8 * 25, "encoder": 1000, "ratio": 0.2},
    ]
    assert metrics["rejects"] == [{"stage": "ingest", "n": 1}]
    assert metrics["counts"] == {"samples_without_vector": {}, "samples_without_head": {}}
    assert metrics["transductive"] is False


@pytest.mark.parametrize("scorer", get_args(Scorer))
def test_every_scorer_is_measured_and_named(make_kb: MakeKb, tmp_path: Path, scorer: Scorer) -> None:
    """Rows of recognition and calibration say which scorer, and each finds unseen categories above chance."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=20, batch_size=48, learning_rate=0.02))
    settings = replace(SETTINGS, scorer=scorer, few_shot=(), baselines=False, repeats=0)
    metrics = evaluate(kb, tmp_path, settings)
    rows = metrics["recognition"] + metrics["zero_shot"] + metrics["calibration"]
    assert {row["scorer"] for row in rows} == {scorer}
    assert _top1(metrics["recognition"], "unseen", "llm_centers") > 0.6  # chance is 1/3


def test_calibration_is_of_both_models(make_kb: MakeKb, tmp_path: Path) -> None:
    """Fitted on the val samples of each modality and model; on what it was fitted for, it is no worse."""
    kb = make_kb(noise=0.9)
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=20, batch_size=48, learning_rate=0.02))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    rows = metrics["calibration"]
    both = {("mean", row["modality"]) for row in metrics["trust"] if row["model"] == "mean"}
    assert ("mean", "image") in both
    models = {(row["model"], row["modality"]) for row in rows}
    aligned = {("aligned", modality) for modality in ("audio", "image", "point", "text")}
    assert models == aligned | {("zero_shot", "image"), ("zero_shot", "text")} | both
    assert {(row["split"], row["n_fit"], row["n"]) for row in rows} == {
        ("seen", 18, 18),
        ("unseen", 18, 30),
        ("seen_among_all", 18, 18),
        ("unseen_among_all", 18, 30),
    }
    seen = [row for row in rows if row["split"] == "seen"]
    assert np.mean([row["nll"] for row in seen]) < np.mean([row["nll_before"] for row in seen])


def test_results_of_transductive_centers_are_marked(make_kb: MakeKb, tmp_path: Path) -> None:
    """Unlabelled test samples had a say in the centers: the metrics say so, first of all."""
    kb = make_kb()
    localize(kb, Localize(k=5, rule="pseudo", transductive=True))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    assert next(iter(metrics.items())) == ("transductive", True)


def test_centers_that_hold_the_name_are_marked(make_kb: MakeKb, tmp_path: Path) -> None:
    """`with_name` is in the metrics as it is in the centers."""
    kb = make_kb()
    for with_name in (True, False):
        localize(kb, Localize(k=3, rule="text", with_name=with_name))
        metrics = evaluate(kb, tmp_path, Evaluate(bootstrap=10, sweeps=False, probe=False, few_shot=()))
        assert metrics["with_name"] is with_name


def test_two_runs_of_one_seed_are_equal(make_kb: MakeKb, tmp_path: Path) -> None:
    """Trained and measured twice, baselines and few-shot heads too: the same JSON, tables and metadata."""
    kb = make_kb(noise=0.9)
    localize(kb, Localize(k=5))
    texts = []
    for run in (tmp_path / "one", tmp_path / "two"):
        train(kb, run, Train(epochs=2, center_weight=0.5))
        texts.append(json.dumps(evaluate(kb, run, SETTINGS)))
    assert texts[0] == texts[1]
    assert load_heads(tmp_path / "one").metadata == load_heads(tmp_path / "two").metadata
    for name in ("named.parquet", "ranks.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_side_by_side_gives_the_numbers_of_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, make_kb: MakeKb, tmp_path: Path
) -> None:
    """A large run trains and measures its parts in turn, a small one together: no number depends on it."""
    kb = make_kb()
    localize(kb, Localize(k=3))
    train(kb, tmp_path, Train(epochs=2, batch_size=48))
    together = evaluate(kb, tmp_path, SETTINGS)
    monkeypatch.setattr("trainer.evaluate.trainings.given._SMALL", 0)
    assert evaluate(kb, tmp_path, SETTINGS) == together


def test_measuring_writes_nothing_and_evaluating_two_tables(make_kb: MakeKb, tmp_path: Path) -> None:
    """The tables hold what the shares are made of: every row's top-1, top-5, recall and median rank."""
    kb = make_kb(noise=0.9)
    localize(kb, Localize(k=5))
    train(kb, tmp_path / "run", Train(epochs=2))
    base = open_kb(kb)
    before = sorted(tmp_path.rglob("*"))
    measured = measure(base, load_centers(base), load_heads(tmp_path / "run"), SETTINGS)
    assert sorted(tmp_path.rglob("*")) == before
    assert evaluate(kb, tmp_path / "run", SETTINGS) == measured.metrics
    assert pq.read_table(tmp_path / "run" / "named.parquet").equals(measured.named)
    assert pq.read_table(tmp_path / "run" / "ranks.parquet").equals(measured.ranks)

    named = measured.named.group_by(["model", "modality", "split", "anchors"]).aggregate(
        [("hit", "mean"), ("hit5", "mean"), ("sample_id", "count")]
    )
    shares = {
        tuple(row[key] for key in ("model", "modality", "split", "anchors")): row for row in named.to_pylist()
    }
    rows = measured.metrics["recognition"] + measured.metrics["zero_shot"]
    assert len(shares) == len(rows)
    for row in rows:
        share = shares[row["model"], row["modality"], row["split"], row["anchors"]]
        assert (share["hit_mean"], share["hit5_mean"]) == pytest.approx((row["top1"], row["top5"]))
        assert share["sample_id_count"] == row["n"]
    for row in measured.metrics["retrieval"]:
        ranks = np.array(
            [
                each["rank"]
                for each in measured.ranks.to_pylist()
                if all(each[key] == row[key] for key in ("query", "gallery", "level"))
            ]
        )
        assert (np.mean(ranks <= 10), np.median(ranks)) == pytest.approx((row["r10"], row["median_rank"]))
        assert len(ranks) == row["n"]


def test_every_key_is_documented(make_kb: MakeKb, tmp_path: Path) -> None:
    """Each key of metrics.json stands in its section of docs/metrics.md, and each column in its file's."""
    kb = make_kb(noise=0.9)
    localize(kb, Localize(k=6))
    train(kb, tmp_path, Train(epochs=1))
    metrics = {"dataset": "", "seed": 0, "stages": [dict.fromkeys(("name", "seconds", "skipped"))]}
    metrics |= evaluate(kb, tmp_path, SETTINGS)
    assert metrics["unmeasured"] == []  # every modality has its row
    metrics["unmeasured"] = evaluate(kb, tmp_path / "none", replace(SETTINGS, probe=False))["unmeasured"]
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    sections = {part.split("\n", 1)[0].strip("` "): part for part in re.split(r"^##+ ", page, flags=re.M)}
    recognition = sections["recognition"]
    for key, value in metrics.items():
        assert f"`{key}`" in sections["metrics.json"], key
        if isinstance(value, bool | int | str):
            continue
        assert value, key  # or this test would look at nothing
        prose = sections[key] + (
            recognition
            if key in ("zero_shot", "probe", "sweeps", "few_shot", "trust", "stacking", "repeats")
            else ""
        )
        for name in {name for row in value for name in row} if isinstance(value, list) else value:
            assert f"`{name}`" in prose, (key, name)
    for row in metrics["balance"]:
        assert f"`{row['measure']}`" in sections["balance"]
    for file, schema in (("named.parquet", NAMED), ("ranks.parquet", RANKS)):
        for name in schema.names:
            assert f"`{name}`" in sections[file], (file, name)


def test_extras_can_be_switched_off(make_kb: MakeKb, tmp_path: Path) -> None:
    """Probe, few-shot and sweeps are empty lists then; all else is as it was."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    metrics = evaluate(
        kb,
        tmp_path,
        replace(
            SETTINGS, few_shot=(), probe=False, sweeps=False, baselines=False, stacking_folds=0, repeats=0
        ),
    )
    assert (metrics["probe"], metrics["few_shot"], metrics["sweeps"]) == ([], [], [])
    full = evaluate(kb, tmp_path, SETTINGS)
    assert {row["method"] for row in full["few_shot"]} == {"probe"}
    assert len(full["probe"]) == 4
    assert full["recognition"] == metrics["recognition"]


def test_without_heads_the_zero_shot_encoder_is_measured(make_kb: MakeKb, tmp_path: Path) -> None:
    """Centers guided by labels: test samples only, seen and unseen; no parameters were trained."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    assert metrics["recognition"] == metrics["zero_shot"]
    assert {row["split"] for row in metrics["recognition"]} == {
        "seen",
        "unseen",
        "seen_among_all",
        "unseen_among_all",
    }
    assert {row["anchors"] for row in metrics["balance"]} == {"zero_shot"}
    assert metrics["parameters"] == []


def test_where_no_label_was_used_every_sample_is_scored(make_kb: MakeKb, tmp_path: Path) -> None:
    """Rule `text` and no heads: all 120 pictures are unseen, among all 12 categories."""
    kb = make_kb()
    localize(kb, Localize(k=5, rule="text"))
    rows = evaluate(kb, tmp_path, SETTINGS)["recognition"]
    assert {(row["split"], row["n"], row["chance"]) for row in rows} == {("unseen", 120, 1 / 12)}
    assert _top1(rows, "unseen", "llm_centers") > 3 / 12


def test_a_modality_without_a_head_is_counted(make_kb: MakeKb, tmp_path: Path) -> None:
    """No train samples, no head: absent from the rows, present in the counts."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    write_table(
        kb / "samples.parquet",
        [{**row, "split": "test"} if row["modality"] == "point" else row for row in rows],
        SAMPLES,
    )
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=1))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    assert {row["modality"] for row in metrics["recognition"]} == {"audio", "image", "text"}
    assert metrics["counts"]["samples_without_head"] == {"point": 120}


def test_an_encoder_that_does_not_tell_its_size_has_no_ratio(make_kb: MakeKb, tmp_path: Path) -> None:
    """Unknown is null, not a guess."""
    kb = make_kb()
    write_json(kb / "embeddings" / "img-0" / "encoder.json", {"name": "img-0"})
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=1))
    row = evaluate(kb, tmp_path, SETTINGS)["parameters"][0]
    assert (row["encoder"], row["ratio"]) == (None, None)


def test_heads_of_another_encoder_are_refused(make_kb: MakeKb, tmp_path: Path) -> None:
    """Heads and vectors that do not belong together give no numbers."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=1))
    (kb / "embeddings" / "img-0").rename(kb / "embeddings" / "img-1")
    path = kb / "embeddings" / "encoders.json"
    path.write_text(path.read_text().replace("img-0", "img-1"))
    with pytest.raises(TrainingError, match="samples encoder img-0, but the knowledge base now has img-1"):
        evaluate(kb, tmp_path, SETTINGS)


def test_what_cannot_be_measured_is_said(make_kb: MakeKb, tmp_path: Path) -> None:
    """Neither heads nor a shared-space encoder: no row for any modality, and the way out for each."""
    kb = make_kb(zero_shot=False)
    localize(kb, Localize(k=5))
    metrics = evaluate(kb, tmp_path, SETTINGS)
    modalities = {row["modality"] for row in read_rows(kb / "samples.parquet")}
    assert metrics["recognition"] == metrics["zero_shot"] == metrics["retrieval"] == []
    assert {row["modality"] for row in metrics["unmeasured"]} == modalities
    for row in metrics["unmeasured"]:
        assert row["n"] > 0
        assert "there is no zero-shot encoder, and no head was trained; `unibind train`" in row["reason"]
    assert read_columns(tmp_path / "named.parquet", ["hit"], hint="").num_rows == 0


def test_samples_without_a_category_are_not_measured(make_kb: MakeKb, tmp_path: Path) -> None:
    """A knowledge base without categories goes through localization and evaluation, and says why."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    write_table(kb / "samples.parquet", [{**row, "category_id": None} for row in rows], SAMPLES)
    write_table(kb / "categories.parquet", [], CATEGORIES)
    write_table(kb / "controls.parquet", [], CONTROLS)
    assert localize(kb, Localize(k=5))["centers"] == 0
    metrics = evaluate(kb, tmp_path, SETTINGS)
    assert metrics["recognition"] == []
    assert metrics["unmeasured"][0]["modality"] is None
    assert "no category is named" in metrics["unmeasured"][0]["reason"]
    assert all("has a category" in row["reason"] for row in metrics["unmeasured"][1:])
