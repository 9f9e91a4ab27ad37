"""The main job end to end: seven modalities, from files to metrics and a report."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.run.jobs import STAGE_NAMES

Unibind = Callable[..., subprocess.CompletedProcess[str]]
NON_TEXT = {"image", "audio", "point", "thermal", "video", "event"}
ANCHORS = {"llm_centers", "class_name", "templates", "random_words", "permuted", "name_free"}
TITLES = {"aligned": "aligned heads", "zero_shot": "zero-shot", "mean": "mean of both"}


def evaluated(folder: Path) -> dict[str, Any]:
    """What the evaluation of a finished run says."""
    found: dict[str, Any] = json.loads((folder / "runs/small/evaluation.json").read_text(encoding="utf-8"))
    return found


def chosen(folder: Path) -> dict[str, str]:
    """By which model a new file of each modality is placed."""
    return {row["modality"]: row["model"] for row in evaluated(folder)["trust"] if row["chosen"]}


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(
        (finished / "runs/small/metrics.json").read_text(encoding="utf-8")
    )
    return found


def test_every_modality_has_every_split_and_every_control(
    metrics: dict[str, list[dict[str, object]]],
) -> None:
    """Each modality is measured on seen and unseen categories with LLM centers and with each control."""
    rows = {(row["modality"], row["split"], row["anchors"]) for row in metrics["recognition"]}
    for modality in NON_TEXT | {"text"}:
        for split in ("seen", "unseen", "seen_among_all", "unseen_among_all"):
            assert {anchors for m, s, anchors in rows if (m, s) == (modality, split)} == ANCHORS
    assert len(rows) == len(metrics["recognition"])


def test_intervals_hold_their_accuracy_and_chance_is_one_of_the_candidates(
    metrics: dict[str, list[dict[str, object]]],
) -> None:
    """top1_low <= top1 <= top1_high <= 1, top1 <= top5, and chance is 1/candidates."""
    for row in metrics["recognition"] + metrics["zero_shot"]:
        assert 0 <= row["top1_low"] <= row["top1"] <= row["top1_high"] <= 1  # type: ignore[operator]
        assert row["top1"] <= row["top5"] <= 1  # type: ignore[operator]
        assert round(1 / row["chance"]) in {2, 6, 8}  # type: ignore[operator]


def test_all_42_ordered_pairs_are_retrieved_on_both_levels(
    metrics: dict[str, list[dict[str, object]]],
) -> None:
    """Seven modalities give 42 ordered pairs, by category and by object."""
    per_level = Counter(row["level"] for row in metrics["retrieval"] if row["query"] != row["gallery"])
    assert per_level == {"category": 42, "object": 42}


def test_every_stage_has_its_wall_time(metrics: dict[str, list[dict[str, object]]]) -> None:
    """metrics.json names the stages in order, with seconds."""
    assert [stage["name"] for stage in metrics["stages"]] == [*STAGE_NAMES]
    assert all(stage["seconds"] >= 0 for stage in metrics["stages"])  # type: ignore[operator]


def test_a_second_run_skips_everything_and_says_so(finished: Path, unibind: Unibind) -> None:
    """Nothing changed, so every stage is recognised by its fingerprint."""
    done = unibind(finished, "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("skipped: nothing it depends on has changed") == len(STAGE_NAMES)
    again = json.loads((finished / "runs/small/metrics.json").read_text(encoding="utf-8"))
    assert all(stage["skipped"] for stage in again["stages"])


def test_duckdb_reads_the_tables_without_any_code_of_ours(finished: Path) -> None:
    """Descriptions per category and model, and rejected rows by reason, from the Parquet alone."""
    kb = finished / "runs/small/kb"
    per_model = duckdb.sql(
        f"SELECT category_id, model_resolved, count(*) FILTER (filename LIKE '%/part-%'), count(*) "
        f"FROM read_parquet('{kb}/descriptions/category/*.parquet', filename = true) "
        "WHERE status = 'ok' GROUP BY ALL"
    ).fetchall()
    assert len(per_model) == 8
    assert all(first == 6 and both >= 6 + 5 for _, _, first, both in per_model)  # 5 set it apart
    statuses = duckdb.sql(f"SELECT DISTINCT status FROM '{kb}/descriptions/**/*.parquet'").fetchall()
    assert ("ok",) in statuses


def test_the_report_is_one_file_that_asks_the_network_for_nothing(finished: Path) -> None:
    """report.html holds its pictures and styles itself."""
    page = (finished / "runs/small/report.html").read_text(encoding="utf-8")
    assert "<table" in page
    assert "data:image/" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_predict_reads_all_modalities_of_the_world(finished: Path, unibind: Unibind) -> None:
    """A file of each modality is placed, with the text that spoke for it, and a probability or why none."""
    media = finished / "world"
    kinds = {
        "png": "image",
        "wav": "audio",
        "ply": "point",
        "tiff": "thermal",
        "mp4": "video",
        "bin": "event",
    }
    files = [max(path for path in media.rglob(f"*.{ending}") if path.is_file()) for ending in kinds]
    done = unibind(finished, "predict", *map(str, files), "--top", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    used = chosen(finished)
    fitted = {
        row["modality"]
        for row in evaluated(finished)["calibration"]
        if row["model"] == used[row["modality"]] and row["temperature"] is not None
    }
    answers = re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)[1:]
    assert len(answers) == len(kinds)
    for modality, answer in zip(kinds.values(), answers, strict=True):
        assert f"({modality}, {TITLES[used[modality]]})" in answer
        assert ("beside it: " in answer) == (modality in ("image", "video"))
        assert f"note: {modality}: " in done.stderr
        shares = re.findall(r" -?\d\.\d{3} +(\d+\.\d)%  ", answer)
        assert (len(shares), "no probability: " in answer) == (
            (2, False) if modality in fitted else (0, True)
        )


def test_another_scorer_is_measured_anew(undisturbed: Path, unibind: Unibind, tmp_path: Path) -> None:
    """`scorer` under [evaluate] runs the evaluation again, whose rows name it; until then, no probability."""
    folder = shutil.copytree(undisturbed, tmp_path / "p")
    project = folder / "unibind.toml"
    told = project.read_text(encoding="utf-8").replace("[evaluate]", '[evaluate]\nscorer = "logsumexp"')
    project.write_text(told, encoding="utf-8")
    picture = str(next((folder / "world").rglob("*.png")))
    assert "other centers, heads or settings" in unibind(folder, "predict", picture).stdout
    done = unibind(folder, "evaluate")
    assert done.returncode == 0, done.stderr
    assert "evaluate: skipped" not in done.stderr
    evaluation = evaluated(folder)
    rows = evaluation["recognition"] + evaluation["zero_shot"] + evaluation["calibration"]
    assert {row["scorer"] for row in rows} == {"logsumexp"}
    assert "other centers, heads or settings" not in unibind(folder, "predict", picture).stdout


def test_predict_tells_an_unreadable_file_and_goes_on(finished: Path, unibind: Unibind) -> None:
    """One bad file is one error line; the good one beside it is still answered; the exit code is 1."""
    bad = finished / "bad.png"
    bad.write_bytes(b"not a picture")
    good = next((finished / "world").rglob("*.png"))
    done = unibind(finished, "predict", str(bad), str(good), "--modality", "image")
    assert done.returncode == 1
    assert "bad.png: error:" in done.stdout
    assert f"(image, {TITLES[chosen(finished)['image']]})" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_retrieve_finds_samples_by_words(finished: Path, unibind: Unibind) -> None:
    """A text query returns the asked number of samples of the asked modality, best first."""
    done = unibind(finished, "retrieve", "a steel torus", "--into", "image", "--top", "3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(" image " in line for line in lines)
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_kb_commands_answer(finished: Path, unibind: Unibind) -> None:
    """stats, show and sql print something true; an unknown category gets a suggestion."""
    assert re.search(r"\b8\b", unibind(finished, "kb", "stats").stdout)
    assert "ok" in unibind(finished, "kb", "sql", "SELECT DISTINCT status FROM v_descriptions").stdout
    wrong = unibind(finished, "kb", "show", "wooden-sphre")
    assert wrong.returncode == 1
    assert "did you mean 'wooden sphere'" in wrong.stderr
