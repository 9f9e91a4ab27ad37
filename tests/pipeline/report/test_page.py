"""The report: true to its numbers, whole in one file, and safe with hostile names and texts."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile as sf
from PIL import Image

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.evaluate.measure import evaluate
from trainer.settings import Evaluate

HOSTILE = '<script>alert("x")</script>'


def test_the_page_is_one_file_that_runs_nothing(run: Any, page: Any) -> None:
    """No script, no outside address, no handler; links stay on the page and have a target; under 3 MB."""
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "form", "base"})
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {(attributes.get("href") or "#")[1:] for tag, attributes in page.tags if tag == "a"} <= ids
    markup = run.target.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", markup)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'")
    assert run.target.stat().st_size < 3_000_000


def test_hostile_names_and_texts_are_shown_as_they_are(page: Any, run: Any) -> None:
    """Markup in a title, a category, a text, a sample id and a reject reason is text on the page."""
    for name in run.names.values():
        assert name in page.text
    assert f"run of {HOSTILE}" in page.text
    assert f"rejected {HOSTILE}" in page.text
    assert f"broken{HOSTILE}.wav: cut short" in page.text
    assert f"says {HOSTILE}" in page.text  # a text sample among the mistakes
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    kinds = {"img": "data:image/jpeg;base64,", "audio": "data:audio/wav;base64,"}
    for tag, attributes in page.tags:
        if tag in kinds:
            assert (attributes.get("src") or "").startswith(kinds[tag])


def test_sounds_can_be_heard(page: Any) -> None:
    """Each is a WAV of at most two seconds, with a name for screen readers, and there are at most eight."""
    sounds = [attributes for tag, attributes in page.tags if tag == "audio"]
    assert 0 < len(sounds) <= 8
    for each in sounds:
        assert "audio sample" in each["aria-label"]
        assert (each["controls"], each["preload"]) == ("", "none")
        content = base64.b64decode(each["src"].removeprefix("data:audio/wav;base64,"))
        with sf.SoundFile(io.BytesIO(content)) as sound:
            assert sound.subtype == "PCM_16"
            assert 0 < sound.frames <= 2 * sound.samplerate


def test_the_first_screen_comes_first_and_details_are_folded(page: Any, run: Any) -> None:
    """Question, answer, table and map before any section; the appendix is in closed details."""
    markup = run.target.read_text(encoding="utf-8")
    order = [
        markup.index(words) for words in ("Asked: which of", 'class="lead"', "<table>", "t-SNE", "<nav>")
    ]
    assert order == sorted(order)
    for name in ("recognition", "calibration", "balance", "training", "stages"):
        assert re.search(rf'<details class="folded"><summary>[^<]+</summary><section id="{name}">', markup), (
            name
        )
    for name in ("categories", "mistakes", "retrieval", "knowledge-base"):
        assert not re.search(rf'</summary><section id="{name}">', markup), name
    assert not [a for tag, a in page.tags if tag == "details" and "open" in a]


def test_the_same_run_gives_the_same_bytes(run: Any, tmp_path: Path) -> None:
    """Page and picture depend on nothing but the run."""
    again = run.write(tmp_path / "report.html")
    assert again.read_bytes() == run.target.read_bytes()
    assert (tmp_path / "space.png").read_bytes() == (run.root / "space.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "space.png"]


def test_the_picture_beside_the_report_is_a_png(run: Any) -> None:
    """space.png opens and is wide enough for a README."""
    with Image.open(run.root / "space.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_a_run_without_training_says_so(run: Any, tmp_path: Path, parsed: Any) -> None:
    """Without heads the zero-shot numbers are the run's, and nothing claims an aligned space."""
    evaluation = evaluate(run.kb, tmp_path, Evaluate(bootstrap=100))
    target = run.write(tmp_path / "report.html", json.loads(json.dumps(evaluation)), tmp_path)
    text = parsed(target.read_text(encoding="utf-8")).text
    assert "its table above is the zero-shot table" in text
    assert "Nothing was trained." in text
    assert "After: the unified space" not in text


def test_a_run_without_labels_or_numbers_is_still_a_page(run: Any, tmp_path: Path, parsed: Any) -> None:
    """Empty metrics give sentences, not holes or errors."""
    text = parsed(run.write(tmp_path / "report.html", {}).read_text(encoding="utf-8")).text
    for words in ("no labelled sample to score", "Nothing to retrieve", "Balance is between modalities"):
        assert words in text


def test_a_run_without_test_samples_draws_no_space(run: Any, tmp_path: Path, parsed: Any) -> None:
    """Without a test split there is a page that says so, and no picture of other samples stays beside it."""
    kb = tmp_path / "kb"
    shutil.copytree(run.kb, kb)
    rows = [dict(row, split="train") for row in read_rows(kb / "samples.parquet")]
    write_table(kb / "samples.parquet", rows, SAMPLES)
    (tmp_path / "space.png").write_bytes(b"of an earlier run")
    moved = replace(run, root=tmp_path, metrics={}, target=tmp_path / "report.html")
    text = parsed(moved.write(moved.target, run=run.root).read_text(encoding="utf-8")).text
    assert "There are no test samples to draw." in text
    assert "No labelled sample could be scored." in text
    assert not (tmp_path / "space.png").exists()
