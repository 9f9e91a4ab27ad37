"""Each benchmark goes from a tree in its official layout to a finished row beside the paper's number."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.benchmarks import BENCHMARKS, Wanted, find_benchmark
from data.errors import InputError, KnowledgeBaseError, ManifestError
from data.lock import write_lock
from pipeline.cli.main import app
from pipeline.project import load_project
from pipeline.reproduce.order import Order, settled
from pipeline.reproduce.run import apart, encode_section, folds_of, inherit, reproduce
from pipeline.run.runner import run_stages

Tree = Callable[[str], Path]
PHOTOGRAPHED = {"image", "video"}  # what the embedded encoder names without training


def order(name: str, data: Path, out: Path, **more: Any) -> Order:
    settings = {"describer": "fake", "texts": 3, "partial": True, "epochs": 2, **more}
    return Order(benchmark=find_benchmark(name), data=data, out=out, **settings)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_reaches_its_row_of_the_table(name: str, tree: Tree, tmp_path: Path) -> None:
    """From the official layout to a finished row: zero-shot for photos and videos, else trained, one fold."""
    benchmark = BENCHMARKS[name]
    train = benchmark.modality not in PHOTOGRAPHED
    fold = "1" if benchmark.folds else None
    result = reproduce(order(name, tree(name), tmp_path / name, train=train, fold=fold))
    lines = {(line.setting, line.model): line for line in result.lines()}
    ours = lines["fine-tuned" if train else "zero-shot", "UniBind"]
    assert ours.ours is not None
    assert 0 <= ours.ours <= 1
    paper = benchmark.paper
    assert ours.paper == (paper.fine_tuned_unibind if train else paper.zero_shot_unibind)
    assert lines["zero-shot", "bare category names"].paper == paper.zero_shot_base
    (outcome,) = result.outcomes
    assert outcome.n == outcome.n_test > 0
    assert outcome.quarantined == {}
    told = result.to_text()
    assert paper.base in told
    assert benchmark.split_rule in told
    assert "MARKED: --partial" in told
    written = json.loads((tmp_path / name / f"{'fine-tuned' if train else 'zero-shot'}.json").read_text())
    assert written["benchmark"] == name
    assert written["outcomes"][0]["n"] == outcome.n


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_seen_by_a_brought_clip(
    name: str, tree: Tree, clip_folder: Path, tmp_path: Path
) -> None:
    """By the command, zero-shot: what is no picture is drawn, and texts of the same CLIP name it."""
    arguments = ["--encoder", f"clip:{clip_folder}", "--describer", "fake", "--texts", "2", "--partial"]
    data, out = str(tree(name)), tmp_path / "out"
    done = CliRunner().invoke(app, ["reproduce", name, "--data", data, "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    assert f"{BENCHMARKS[name].paper.zero_shot_unibind:.2f}" in done.output
    (outcome,) = json.loads((out / "zero-shot.json").read_text())["outcomes"]
    assert outcome["n"] == outcome["n_test"] > 0
    assert 0 <= outcome["zero_shot"]["top1"] <= 1


@pytest.mark.parametrize("form", ["modelnet40/resampled", "shapenet/part16"])
def test_clouds_in_text_files_are_converted_once(form: str, tree: Tree, tmp_path: Path) -> None:
    """The prepared folder holds one array per cloud, and the finished row counts them all."""
    result = reproduce(order(form.split("/")[0], tree(form), tmp_path, train=True))
    made = sorted((tmp_path / "prepared" / "clouds-1").rglob("*.npy"))
    assert len(made) == 18
    assert result.outcomes[0].n == 6


def test_folds_are_run_one_by_one_and_averaged(tree: Tree, tmp_path: Path) -> None:
    """The three splits of UCF-101 give the mean of their accuracies, and ask for each text once."""
    result = reproduce(order("ucf-101", tree("ucf-101"), tmp_path, train=True, fold="all"))
    assert [outcome.fold for outcome in result.outcomes] == [1, 2, 3]
    each = [outcome.fine_tuned.top1 for outcome in result.outcomes if outcome.fine_tuned]
    line = result.lines()[-1]
    assert line.ours == pytest.approx(sum(each) / 3)
    assert line.deviation is not None
    assert line.low is None
    assert "mean of 3 folds" in result.to_text()
    stage = tmp_path / "runs/fine-tuned-fold-2/stages/describe-categories.json"
    summary = json.loads(stage.read_text())["summary"]
    assert summary["answered_from_ledger"] == summary["requests"] > 0


def test_corrupt_files_are_quarantined_and_counted(own_tree: Tree, tmp_path: Path) -> None:
    """The accuracy says over how many samples it was computed; torn and empty files are not among them."""
    root = own_tree("imagenet-1k")
    torn, empty = sorted((root / "val").rglob("*.JPEG"))[:3:2]
    torn.write_bytes(torn.read_bytes()[:100])
    empty.write_bytes(b"")
    result = reproduce(order("imagenet-1k", root, tmp_path / "out"))
    (outcome,) = result.outcomes
    assert (outcome.n, outcome.n_test) == (4, 6)
    assert outcome.quarantined == {"test": 2}
    assert "over 4 of 6 test samples; quarantined: 2" in result.to_text()
    assert "0.6667" in result.to_text()
    assert {reject.sample_id for reject in outcome.rejects} == {
        each.relative_to(root).as_posix() for each in (torn, empty)
    }


def test_files_that_cannot_be_prepared_are_quarantined(own_tree: Tree, tmp_path: Path) -> None:
    """A torn thermal picture costs its own crops, no more."""
    root = own_tree("llvip")
    torn = root / "infrared/test/190001.jpg"
    torn.write_bytes(torn.read_bytes()[:200])
    result = reproduce(order("llvip", root, tmp_path / "out", train=True))
    (outcome,) = result.outcomes
    assert outcome.quarantined == {"test": 4}
    assert outcome.n == outcome.n_test - 4
    assert all("190001.jpg: not a readable picture" in reject.reason for reject in outcome.rejects)
    assert "The first: test/background/190001-00.png: " in result.to_text()


def test_the_project_file_is_ordinary_and_an_edit_is_respected(tree: Tree, tmp_path: Path) -> None:
    """`unibind run` runs the file as it stands; once edited, it is never overwritten."""
    asked = order("imagenet-1k", tree("imagenet-1k"), tmp_path)
    first = reproduce(asked)
    path = tmp_path / "zero-shot.toml"
    project = load_project(path)
    assert [each.skipped for each in run_stages(project, ["ingest", "encode", "evaluate"])] == [True] * 3
    assert reproduce(asked).outcomes == first.outcomes
    path.write_text(path.read_text().replace("k = 3", "k = 2"))
    with pytest.raises(InputError, match="was edited; run it with `unibind run --project"):
        reproduce(asked)


def test_training_after_zero_shot_takes_over_what_is_there(tree: Tree, tmp_path: Path) -> None:
    """The second run finds every answer in the ledger and encodes only the train pictures."""
    data = tree("places365")
    reproduce(order("places365", data, tmp_path))
    result = reproduce(order("places365", data, tmp_path, train=True))
    stages = tmp_path / "runs/fine-tuned/stages"
    described = json.loads((stages / "describe-categories.json").read_text())["summary"]
    encoded = json.loads((stages / "encode.json").read_text())["summary"]["samples"]
    assert described["answered_from_ledger"] == described["requests"] > 0
    assert encoded["carried"] + encoded["reused"] >= 6
    assert result.lines()[1].ours is not None  # zero-shot stands beside the trained number


def test_a_limit_is_kept_and_marked(tree: Tree, tmp_path: Path) -> None:
    """One sample of each category and split; the table says so."""
    result = reproduce(order("imagenet-1k", tree("imagenet-1k"), tmp_path, per_category=1))
    assert result.outcomes[0].n == 3
    assert "MARKED: --limit-per-category 1" in result.to_text()


def test_a_brought_model_encodes_texts_and_samples(
    tree: Tree, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CLIP folder, named from here, is every encoder of the project, which runs from anywhere."""
    monkeypatch.chdir(clip_folder.parent)
    result = reproduce(order("places365", tree("places365"), tmp_path, encoder=clip_folder.name))
    line = result.lines()[1]
    assert line.ours is not None
    encode = load_project(tmp_path / "zero-shot.toml").encode
    assert {encode.text, encode.samples, encode.zero_shot} == {str(clip_folder.resolve())}


def test_every_path_in_an_encoders_name_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders, files and names in the model folder; other names stay."""
    monkeypatch.chdir(tmp_path)
    for place in ("here/clip", "models/points"):
        Path(place).mkdir(parents=True)
    Path("w.pth").touch()
    assert settled("clip:here/clip + point:points") == (
        f"clip:{tmp_path}/here/clip + point:{tmp_path}/models/points"
    )
    assert settled("imagebind:w.pth") == f"imagebind:{tmp_path}/w.pth"
    assert settled("here/clip") == f"{tmp_path}/here/clip"
    assert [settled(name) for name in ("minilm", "clip:none", "conse:")] == ["minilm", "clip:none", "conse:"]


def test_one_order_at_a_time_works_in_a_folder(tree: Tree, tmp_path: Path) -> None:
    """Another order, whatever it asks for, changes nothing there meanwhile."""
    with (
        write_lock(tmp_path / "reproduce.lock"),
        pytest.raises(KnowledgeBaseError, match="is being written by"),
    ):
        reproduce(order("imagenet-1k", tree("imagenet-1k"), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["reproduce.lock"]


def test_a_sample_of_two_splits_is_refused(own_tree: Tree, tmp_path: Path) -> None:
    """A train list that names a test clip would train on it: one line, before anything is asked."""
    root = own_tree("ucf-101")
    test = (root / "ucfTrainTestlist/testlist01.txt").read_text().splitlines()[0]
    with (root / "ucfTrainTestlist/trainlist01.txt").open("a") as file:
        file.write(f"{test} 1\n")
    with pytest.raises(ManifestError, match=r"is in the lists of both test and train") as caught:
        reproduce(order("ucf-101", root, tmp_path / "out", train=True, fold="1"))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_done_is_told_before_anything_is_paid(tree: Tree, tmp_path: Path) -> None:
    """Encoders without the modality, unknown folds and variants are one line each."""
    audio = order("esc-50", tree("esc-50"), tmp_path)
    with pytest.raises(InputError, match="cannot compare audio with texts; add --train"):
        reproduce(audio)
    with pytest.raises(InputError, match=r"takes text$"):
        encode_section(order("esc-50", tree("esc-50"), tmp_path, encoder="minilm"))
    for name, more, message in [
        ("esc-50", {"fold": "6"}, "expected all or a number from 1 to 5; found '6'"),
        ("places365", {"fold": "1"}, "has no folds"),
        ("msr-vtt", {"variant": "7k"}, "has the variants full, 1k-a"),
        ("llvip", {"variant": "rgb"}, "has no variants"),
    ]:
        with pytest.raises(InputError, match=message):
            folds_of(order(name, tree(name), tmp_path, **more))
    for more, message in [
        ({"describer": "openai"}, "--describer openai needs --model"),
        ({"model": "gpt"}, "--model and --base-url need --describer openai; it is fake"),
        ({"base_url": "http://127.0.0.1:1"}, "need --describer openai"),
    ]:
        with pytest.raises(InputError, match=message):
            reproduce(order("places365", tree("places365"), tmp_path, **more))
    assert not (tmp_path / "runs").exists()


def test_which_folds_are_run_by_default(tmp_path: Path) -> None:
    """Zero-shot needs no folds, but UCF-101's test set is that of a split; training averages over all."""
    assert folds_of(order("esc-50", tmp_path, tmp_path)) == [None]
    assert folds_of(order("ucf-101", tmp_path, tmp_path)) == [1]
    assert folds_of(order("urbansound8k", tmp_path, tmp_path, train=True)) == list(range(1, 11))
    assert folds_of(order("imagenet-1k", tmp_path, tmp_path, train=True)) == [None]


def test_only_the_whole_benchmark_with_the_papers_encoder_is_compared(tmp_path: Path) -> None:
    """Whatever sets a result apart is named; ImageBind over all folds is beside its equals."""
    whole = {"partial": False, "describer": "local", "encoder": "imagebind:w"}
    assert apart(order("esc-50", tmp_path, tmp_path, **whole), [None]) == ()
    assert apart(order("esc-50", tmp_path, tmp_path, **whole, train=True), [1, 2, 3, 4, 5]) == ()
    for name, more, folds, why in [
        ("esc-50", {"encoder": "conse"}, [None], "the encoder is conse, not the paper's ImageBind-huge"),
        ("esc-50", {"encoder": "clip:a + imagebind:b"}, [None], "the encoder is clip:a + imagebind:b"),
        ("modelnet40", {"encoder": "imagebind:w"}, [None], "not the paper's Point-Bind"),
        ("esc-50", {"partial": True}, [None], "only a part of the benchmark's samples"),
        ("esc-50", {"per_category": 5}, [None], "only a part of the benchmark's samples"),
        ("esc-50", {}, [3], "only one of its folds"),
        ("esc-50", {"describer": "fake"}, [None], "texts without meaning"),
        ("rgb-t", {}, [None], "which data set the paper calls RGB-T could not be established"),
    ]:
        (told,) = apart(order(name, tmp_path, tmp_path, **(whole | more)), folds)
        assert why in told


def test_links_that_lead_outside_are_one_line(tree: Tree, tmp_path: Path) -> None:
    """A folder of links names the link, not each of its files."""
    root = tmp_path / "linked"
    root.mkdir()
    (root / "val").symlink_to(tree("imagenet-1k") / "val")
    with pytest.raises(InputError, match="leads outside") as caught:
        reproduce(order("imagenet-1k", root, tmp_path / "out"))
    assert "\n" not in str(caught.value)


def test_a_single_linked_file_is_named(own_tree: Tree, tmp_path: Path) -> None:
    """One file among others that leads out of the folder is found, wherever it stands."""
    root = own_tree("imagenet-1k")
    first = sorted((root / "val").rglob("*.JPEG"))[0]
    (tmp_path / "elsewhere.JPEG").symlink_to(first.rename(tmp_path / "moved.JPEG"))
    first.symlink_to(tmp_path / "elsewhere.JPEG")
    with pytest.raises(InputError, match=rf"{first.name} is behind a link that leads outside") as caught:
        reproduce(order("imagenet-1k", root, tmp_path / "out"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [os.fsdecode(b"m\xfcll"), "a\tb"])
def test_names_that_no_manifest_can_hold_are_one_line(own_tree: Tree, tmp_path: Path, name: str) -> None:
    """Of the data folder, the output folder, a class or a file."""
    root = own_tree("rgb-t")
    other = shutil.copytree(root, tmp_path / name)
    for data, out in ((other, tmp_path / "out"), (root, tmp_path / f"{name}-out")):
        with pytest.raises(ManifestError, match="not UTF-8, or with a line break or tab in its name"):
            reproduce(order("rgb-t", data, out, train=True))
    (root / "test/car/0.jpg").rename(root / f"test/car/{name}.jpg")
    with pytest.raises(ManifestError, match="rename it"):
        BENCHMARKS["rgb-t"].read(root, Wanted())
    (root / f"test/car/{name}.jpg").unlink()
    (root / "test/car").rename(root / "test" / name)
    with pytest.raises(ManifestError, match="rename it") as caught:
        BENCHMARKS["rgb-t"].read(root, Wanted())
    str(caught.value).encode()


def test_a_run_with_a_knowledge_base_inherits_nothing(tree: Tree, tmp_path: Path) -> None:
    """What is there is never replaced."""
    reproduce(order("imagenet-1k", tree("imagenet-1k"), tmp_path))
    project = load_project(tmp_path / "zero-shot.toml")
    before = (project.kb / "ledger.sqlite").stat().st_mtime_ns
    shutil.copytree(project.run, project.run.with_name("newer"))
    inherit(project)
    assert (project.kb / "ledger.sqlite").stat().st_mtime_ns == before


def test_the_command_lists_the_benchmarks_and_asks_for_the_folder() -> None:
    """Without a name all twelve are listed; without a folder it says which is wanted and from where."""
    listed = CliRunner().invoke(app, ["reproduce"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in BENCHMARKS)
    asked = CliRunner().invoke(app, ["reproduce", "UCF101"])
    assert isinstance(asked.exception, InputError)
    assert "ucfTrainTestlist" in str(asked.exception)


def test_the_command_prints_the_table(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its projects and runs go to reproduce/NAME by default."""
    monkeypatch.chdir(tmp_path)
    arguments = ["reproduce", "imagenet-1k", "--data", str(tree("imagenet-1k")), "--describer", "fake"]
    done = CliRunner().invoke(app, [*arguments, "--texts", "3", "--partial"])
    assert done.exit_code == 0, done.output
    assert "83.25" in done.output
    assert (tmp_path / "reproduce/imagenet-1k/zero-shot.toml").is_file()
    without = CliRunner().invoke(app, arguments)
    assert isinstance(without.exception, ManifestError)
