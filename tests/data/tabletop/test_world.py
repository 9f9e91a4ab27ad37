"""The whole sample world on disk."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import ProjectError, UniBindError
from data.files import hash_file
from data.manifest.read import Manifest, read_manifest
from data.modality import MODALITIES
from data.readers import read
from data.tabletop.objects import UNSEEN, draw_object
from data.tabletop.settings import TabletopSettings
from data.tabletop.world import build_world, is_complete
from kb_builder.gates.names import normalise, stem
from tests.planted import SMALL_WORLD as SMALL


@pytest.fixture
def world(sample_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a small world that two processes made."""
    return Path(shutil.copytree(sample_world, tmp_path_factory.mktemp("world") / "world"))


def _manifest(folder: Path) -> Manifest:
    return read_manifest(folder / "manifest.parquet", categories=folder / "categories.csv")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hash_file(path) for path in files}


def test_part_numbers_stand_for_names_and_notes_tell_what_they_are(world: Path, tmp_path: Path) -> None:
    """The same objects, files and ids; codes that are all different; notes without a word of the name."""
    shutil.copytree(world / "media", tmp_path / "media")
    assert build_world(tmp_path, replace(SMALL, names="codes"), workers=1) == tmp_path / "manifest.parquet"
    assert _hashes(tmp_path / "media") == _hashes(world / "media")  # nothing was made again
    coded, named = _manifest(tmp_path), _manifest(world)
    assert [each.category_id for each in coded.categories] == [each.category_id for each in named.categories]
    assert len({each.name for each in coded.categories}) == 24
    for code, plain in zip(coded.categories, named.categories, strict=True):
        assert re.fullmatch(r"[A-Z]{2}-[1-9]\d{3}", code.name)
        assert code.notes
        assert plain.notes is None
        stems = set(map(stem, normalise(code.notes).split()))
        assert stems.isdisjoint(map(stem, normalise(plain.name).split()))
    assert len({each.notes for each in coded.categories}) == 24


def test_every_object_has_seven_samples_and_every_file_can_be_read(world: Path) -> None:
    """24 categories × 3 objects × 7 modalities; the readers for users' files accept each of them."""
    manifest = _manifest(world)
    assert len(manifest.categories) == 24
    assert Counter(sample.modality for sample in manifest.samples) == dict.fromkeys(MODALITIES, 72)
    per_object = Counter(sample.object_id for sample in manifest.samples)
    assert set(per_object.values()) == {7}
    for sample in manifest.samples:
        assert sample.sample_id == f"{sample.object_id}/{sample.modality}"
        if sample.object_id in {"glass-torus-000", "wooden-cone-002"}:
            read(sample.modality, world / sample.uri)


def test_unseen_categories_are_test_alone_and_the_others_have_all_splits(world: Path) -> None:
    """Six categories have no train or val sample; all others have all three splits, in every modality."""
    splits: dict[tuple[str | None, str], set[str]] = {}
    for sample in _manifest(world).samples:
        splits.setdefault((sample.category_id, sample.modality), set()).add(sample.split)
    unseen = {f"{material}-{shape}" for material, shape in UNSEEN}
    for (category, _), found in splits.items():
        assert found == ({"test"} if category in unseen else {"train", "val", "test"})


def test_only_what_is_missing_or_damaged_is_made_again(world: Path) -> None:
    """A lost file, a damaged one and leavings of a killed run are mended; whole objects are left alone."""
    before = _hashes(world)
    kept = world / "media" / "cork-torus-000" / "image.png"
    made = kept.stat().st_mtime_ns
    (world / "media" / "glass-cone-001" / "audio.wav").unlink()
    damaged = world / "media" / "steel-torus-002" / "point.ply"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    shutil.rmtree(world / "media" / "stone-cone-000")
    leaving = world / "media" / ".stone-cone-000.tmp"
    leaving.mkdir()
    (leaving / "image.png").write_bytes(b"half a picture")
    build_world(world, SMALL, workers=1)
    assert _hashes(world) == before
    assert kept.stat().st_mtime_ns == made


def test_an_object_of_other_settings_is_not_taken_for_a_finished_one(world: Path) -> None:
    """Another seed or size asks for other files; more objects per category leave the others alone."""
    media = world / "media"

    def complete(**changes: int) -> bool:
        settings = replace(SMALL, **changes)
        return is_complete(draw_object("cork", "cone", index=0, seed=settings.seed), settings, media)

    assert complete()
    assert complete(objects_per_category=9)
    assert not complete(seed=1)
    assert not complete(video_px=64)
    assert not is_complete(draw_object("cork", "cone", index=7, seed=0), SMALL, media)


def test_no_file_names_its_category(world: Path) -> None:
    """Nothing inside a sample says what it shows."""
    for name in ("image.png", "audio.wav", "point.ply", "thermal.tiff", "video.mp4", "text.txt"):
        content = (world / "media" / "rubber-torus-000" / name).read_bytes().lower()
        assert b"rubber" not in content
        assert b"torus" not in content


def test_a_folder_that_cannot_be_made_gives_one_clear_error(tmp_path: Path) -> None:
    """A file where the folder should be: what, where, and what to do."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UniBindError, match=r"cannot write the sample world to .*taken.*another folder"):
        build_world(tmp_path / "taken", SMALL, workers=1)


def test_bad_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing is left behind by a refused order."""
    with pytest.raises(ProjectError, match="objects_per_category"):
        build_world(tmp_path / "never", TabletopSettings(objects_per_category=0))
    with pytest.raises(ProjectError, match="at least one worker"):
        build_world(tmp_path / "never", SMALL, workers=0)
    assert not (tmp_path / "never").exists()


SCRIPT = """
import sys
from pathlib import Path
from data.errors import UniBindError
from data.tabletop.settings import TabletopSettings
from data.tabletop.world import build_world
if __name__ == "__main__":
    try:
        build_world(Path(sys.argv[1]), SETTINGS, workers=2)
    except UniBindError as error:
        sys.exit(f"one line: {error}")
""".replace("SETTINGS", repr(SMALL))


def _start(folder: Path, *, largest_file: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    script = folder / "make.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "world")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )


def test_a_full_disk_gives_one_clear_error_and_no_half_made_object(tmp_path: Path) -> None:
    """With files limited to 8 kB, writing fails in the workers as on a full disk."""
    with _start(tmp_path, largest_file=8192) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith("one line: cannot write the sample world to")
    assert "free some space" in said
    assert "Traceback" not in said
    assert list((tmp_path / "world" / "media").iterdir()) == []
    assert not (tmp_path / "world" / "manifest.parquet").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for child processes in /proc")
def test_a_killed_run_leaves_no_process_behind_and_is_continued(world: Path, tmp_path: Path) -> None:
    """After kill -9 the workers end by themselves, and a run with one worker continues to the same bits."""
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world" / "manifest.parquet").unlink()
    lost = sorted((tmp_path / "world" / "media").iterdir())[::4]
    for each in lost:
        shutil.rmtree(each)
    with _start(tmp_path) as process:
        while not any(each.exists() for each in lost):
            assert process.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 300
    while any(_is_running(child) for child in children):
        assert time.monotonic() < deadline, "a worker outlived the killed run"
        time.sleep(0.05)
    assert not (tmp_path / "world" / "manifest.parquet").exists()
    build_world(tmp_path / "world", SMALL, workers=1)
    assert _hashes(tmp_path / "world") == _hashes(world)


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
