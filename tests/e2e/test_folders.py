"""From anyone's folder to a report, without a step by hand: `init`, then `run`, for every kind of folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import tifffile
import trimesh
from PIL import Image

from kb_builder.tables.schemas import read_rows
from pipeline.init import init_project
from pipeline.project import load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.table import result_table

CATEGORIES = ("dog", "bell", "door")
# Enough for a report, and no more.
_SMALL = """
[evaluate]
bootstrap = 20
few_shot = []
sweeps = false
baselines = false
repeats = 0
"""


def picture(path: Path, category: int, number: int) -> None:
    rng = np.random.default_rng(10 * category + number)
    rgb = rng.integers(0, 90, (6, 6, 3), dtype=np.uint8)
    rgb[:, :, category] += 120
    Image.fromarray(rgb).resize((64, 64), Image.Resampling.BICUBIC).save(path.with_suffix(".png"))


def sound(path: Path, category: int, number: int) -> None:
    times = np.arange(8000) / 16000
    wave = 0.3 * np.sin(2 * np.pi * (300 * (category + 1) + 7 * number) * times)
    sf.write(path.with_suffix(".wav"), wave, 16000)


def mesh(path: Path, category: int, number: int) -> None:
    size = 1 + 0.1 * number
    shapes = (
        trimesh.creation.box((1, 1, size)),
        trimesh.creation.icosphere(2, size),
        trimesh.creation.cone(1, size),
    )
    shapes[category].export(path.with_suffix(".ply"))


def note(path: Path, category: int, number: int) -> None:
    path.with_suffix(".txt").write_text(
        f"Note {number}: the {CATEGORIES[category]} is here.", encoding="utf-8"
    )


def thermal(path: Path, category: int, number: int) -> None:
    warmth = np.full((32, 32), 20 + number, np.float32)
    warmth[4 + 6 * category : 12 + 6 * category, 4:20] += 15
    tifffile.imwrite(path.with_suffix(".tiff"), warmth)


def video(path: Path, category: int, number: int) -> None:
    with av.open(str(path.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for step in range(8):
            rgb = np.full((64, 64, 3), 60 * category + 20, np.uint8)
            rgb[5 * step : 5 * step + 10, 8 + number : 30] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def unreadable(path: Path, category: int, number: int) -> None:
    path.with_suffix(".wav").write_bytes(f"no sound {category} {number}".encode())


Maker = Callable[[Path, int, int], None]


def fill(folder: Path, *makers: Maker, n: int = 4, categories: tuple[str, ...] = CATEGORIES) -> Path:
    """`n` things of each category, each with a file of every kind; without categories they lie flat."""
    for place, category in enumerate(categories or ("",)):
        (folder / category).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            for make in makers:
                make(folder / category / f"{'abcdefgh'[number]} thing", place, number)
    return folder


@dataclass
class Done:
    """A finished project."""

    run: Path
    told: str  # by init
    metrics: dict[str, Any]
    table: str
    page: str

    @property
    def rows(self) -> set[str]:
        """The modalities that were recognised."""
        return {row["modality"] for row in self.metrics["recognition"]}

    @property
    def reasons(self) -> dict[str | None, str]:
        return {row["modality"]: row["reason"] for row in self.metrics["unmeasured"]}


def finish(folder: Path) -> Done:
    """`init` and `run` of a folder, with the describer that needs no model."""
    target = folder.parent / "unibind.toml"
    told = "\n".join(init_project(folder, target))
    text = target.read_text(encoding="utf-8").replace('describer = "local"', 'describer = "fake"')
    target.write_text(text.replace("n = 30", "n = 4") + _SMALL, encoding="utf-8")
    project = load_project(target)
    run_stages(project, plan(project))
    metrics = json.loads((project.run / "metrics.json").read_text(encoding="utf-8"))
    page = (project.run / "report.html").read_text(encoding="utf-8")
    return Done(project.run, told, metrics, result_table(metrics), page)


@pytest.mark.parametrize(
    ("makers", "model"),
    [
        ((picture,), "zero_shot"),
        ((note,), "zero_shot"),
        ((video,), "zero_shot"),
        ((sound,), "aligned"),
        ((thermal,), "aligned"),
        ((mesh, picture), "aligned"),
        ((picture, sound, mesh, note), "aligned"),
    ],
)
def test_every_modality_of_a_labelled_folder_has_its_row(
    tmp_path: Path, makers: tuple[Maker, ...], model: str
) -> None:
    """Zero-shot where an encoder shares the text space, by trained heads where none does."""
    done = finish(fill(tmp_path / "things", *makers))
    present = {row["modality"] for row in read_rows(done.run / "kb" / "samples.parquet")}
    assert len(present) == len(makers)
    assert done.rows == present
    assert {row["model"] for row in done.metrics["recognition"]} == {model}
    assert done.metrics["unmeasured"] == []
    assert "Not measured" not in done.table
    if len(makers) > 1:
        assert "grouped 12 objects" in done.told
        assert any(row["level"] == "object" for row in done.metrics["retrieval"])


def test_a_project_of_sounds_asks_about_sounds(tmp_path: Path) -> None:
    """No description of it is about colours or shapes."""
    done = finish(fill(tmp_path / "things", sound, n=2))
    parts = (done.run / "kb" / "descriptions" / "category").glob("part-*.parquet")
    assert {aspect for part in parts for aspect in pq.read_table(part)["aspect"].to_pylist()} == {"sound"}


@pytest.mark.parametrize(("make", "modality"), [(picture, "image"), (sound, "audio")])
def test_a_flat_folder_ends_with_a_report_that_says_why(tmp_path: Path, make: Maker, modality: str) -> None:
    """Nothing can be recognised without categories: init says so, and so do terminal and report."""
    done = finish(fill(tmp_path / "things", make, categories=()))
    assert "no categories" in done.told
    assert done.rows == set()
    for text in (done.table, done.page):
        assert "no category is named" in text
        assert "none of its 4 samples has a category" in text
    assert done.reasons[modality]


@pytest.mark.parametrize(
    ("make", "categories", "n", "reason"),
    [
        (picture, CATEGORIES[:1], 3, "one category only"),
        (sound, CATEGORIES[:1], 3, "a head needs train samples of two categories"),
        (sound, CATEGORIES, 1, "no labelled train sample"),
    ],
)
def test_too_little_to_measure_is_a_report_with_the_reason(
    tmp_path: Path, make: Maker, categories: tuple[str, ...], n: int, reason: str
) -> None:
    """One category, or one sample of each: no error, but what is missing."""
    done = finish(fill(tmp_path / "things", make, categories=categories, n=n))
    assert reason in done.table
    assert reason in done.page


def test_one_modality_that_cannot_be_read(tmp_path: Path) -> None:
    """The photos have their row, the broken sounds their reason."""
    done = finish(fill(tmp_path / "things", picture, unreadable))
    assert done.rows == {"image"}
    assert (
        "audio (12 samples): none of its 12 samples could be encoded; the quarantine says why" in done.table
    )


def test_nothing_to_train_on_is_a_report_too(tmp_path: Path, unibind: Callable[..., Any]) -> None:
    """All sounds are broken: `run` ends with a report and exit status 0, `train` with an error."""
    fill(tmp_path / "things", unreadable, n=2)
    assert unibind(tmp_path, "init", "things").returncode == 0
    project = tmp_path / "unibind.toml"
    text = project.read_text(encoding="utf-8").replace('describer = "local"', 'describer = "fake"')
    project.write_text(text.replace("n = 30", "n = 4") + _SMALL, encoding="utf-8")
    done: subprocess.CompletedProcess[str] = unibind(tmp_path, "run")
    assert done.returncode == 0, done.stderr
    assert "no heads were trained: nothing to train on" in done.stderr
    assert "none of its 6 samples could be encoded" in done.stdout
    done = unibind(tmp_path, "train")
    assert done.returncode == 1
    assert "error: nothing to train on" in done.stderr


def test_given_splits_are_kept(tmp_path: Path) -> None:
    """train/ and test/ above the categories: heads of what is in train, scores on what is in test."""
    fill(tmp_path / "things" / "train", sound, n=3)
    fill(tmp_path / "things" / "test", sound, n=1, categories=CATEGORIES[:2])
    done = finish(tmp_path / "things")
    assert {row["n"] for row in done.metrics["recognition"]} == {2}
    assert {row["split"] for row in done.metrics["recognition"]} == {"seen"}
