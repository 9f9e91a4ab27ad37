"""The report's training curves: the log's own numbers, the kept epoch marked, nothing where nothing was."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kb_builder.tables.schemas import read_rows, write_table
from pipeline.report.training import thinned, training_section
from trainer.align.heads import load_heads, save_heads
from trainer.align.train import TRAIN_LOG


def _log(run: Any) -> list[dict[str, Any]]:
    return read_rows(run.root / "train_log.parquet")


def test_the_curves_are_those_of_the_log(run: Any, tmp_path: Path, parsed: Any) -> None:
    """The temperature's curve has a point per step, at the places of its numbers; a constant has none."""
    section = training_section(run.root)
    assert section is not None
    assert "<title>temperature" not in section
    shutil.copy(run.root / "heads.safetensors", tmp_path)
    log = [{**row, "temperature": 0.07 - 1e-3 * row["step"] ** 0.5} for row in _log(run)]
    write_table(tmp_path / "train_log.parquet", log, TRAIN_LOG)
    section = training_section(tmp_path)
    assert section is not None
    chart = next(s for s in re.findall(r"<svg.*?</svg>", section) if "<title>temperature" in s)
    path = next(a["d"] for tag, a in parsed(chart).tags if tag == "path")
    points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    wanted = [(row["step"], row["temperature"]) for row in log]
    assert len(points) == len(wanted)
    for at in (0, 1):  # both coordinates are linear in the numbers
        drawn, given = [p[at] for p in points], [w[at] for w in wanted]
        scale = (drawn[-1] - drawn[0]) / (given[-1] - given[0])
        assert drawn == pytest.approx([drawn[0] + scale * (one - given[0]) for one in given], abs=0.11)


def test_the_kept_epochs_are_told_and_a_common_one_is_marked(run: Any, tmp_path: Path, parsed: Any) -> None:
    """The words give each modality's epoch and its val top-1; the charts mark one that all share."""
    heads = load_heads(run.root)
    section = training_section(run.root)
    assert section is not None
    for modality, epoch in heads.metadata["epochs"].items():
        top1 = heads.metadata["val_top1"][modality]
        assert f"{modality} epoch {epoch} ({100 * top1:.1f}% top-1 on val)" in parsed(section).text
    shutil.copy(run.root / "train_log.parquet", tmp_path)
    for epochs, marks in (({"audio": 2, "image": 2}, 2), ({"audio": 2, "image": 3}, 0)):
        save_heads(tmp_path, replace(heads, metadata={**heads.metadata, "epochs": epochs}))
        assert str(training_section(tmp_path)).count("epoch 2 kept") == marks


def test_without_training_there_are_no_curves(run: Any, tmp_path: Path) -> None:
    """Without heads, or without the log of an older run, the page has no such section."""
    assert training_section(tmp_path) is None
    shutil.copy(run.root / "heads.safetensors", tmp_path)
    assert training_section(tmp_path) is None


def test_a_log_without_val_samples_and_with_one_loss(run: Any, tmp_path: Path, parsed: Any) -> None:
    """A loss that was not measured has no line, and the words do not speak of val samples."""
    shutil.copy(run.root / "heads.safetensors", tmp_path)
    log = [{**row, "val_top1": None, "loss_center": None} for row in _log(run)]
    write_table(tmp_path / "train_log.parquet", log, TRAIN_LOG)
    text = parsed(training_section(tmp_path)).text
    assert "Without labelled val samples the last epoch is kept." in text
    assert "against its category’s centers" not in text
    assert "Top-1" not in text


def test_long_logs_are_thinned_to_means() -> None:
    """A thousand steps become at most 300 points, each the mean of its neighbours, none left out."""
    points = tuple((float(step), float(step % 2)) for step in range(1000))
    few = thinned(points)
    assert len(few) == 250
    assert few[0] == (1.5, 0.5)
    assert sum(4 * x for x, _ in few) == pytest.approx(sum(x for x, _ in points))
    assert thinned(points[:300]) == points[:300]
