"""A study over a small project: every variant with every seed, kept, told and checked."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError, KnowledgeBaseError, ProjectError
from data.work import Carry, here
from pipeline.project import load_project
from pipeline.study import run as studies
from pipeline.study.compute import CellWork, compute_cells
from pipeline.study.file import load_study
from pipeline.study.run import run_study
from pipeline.study.text import study_text
from tests.elsewhere import Elsewhere, all_files
from trainer.settings import Evaluate, Localize, Train
from trainer.variant import Variant

PROJECT = """
name = "small"
[data]
manifest = "m.csv"
[localize]
k = 4
[train]
epochs = 2
batch_size = 16
"""
STUDY = """
name = "s"
project = "unibind.toml"
seeds = [3, 4]
[ablations.losses]
question = "Which loss?"
[ablations.losses.variants]
"ours" = {}
"published" = { train.loss = "official" }
"broken" = { train = { head = "residual", start = "random" } }
[ablations.centers]
question = "How many?"
[ablations.centers.variants]
"one" = { localize.k = 1 }
"the name" = { localize.k = 1, localize.with_name = true }
"names at test" = { at_test = "class_name" }
[[claims]]
text = "Ours is better."
ablation = "losses"
variant = "published"
measure = "seen"
[[claims]]
text = "Better than a broken one."
ablation = "losses"
variant = "broken"
measure = "seen"
"""


def _plant(folder: Path, run: Any, patch: pytest.MonkeyPatch) -> Path:
    (folder / "unibind.toml").write_text(PROJECT)
    (folder / "s.toml").write_text(STUDY)
    (folder / "runs" / "small").mkdir(parents=True)
    (folder / "runs" / "small" / "kb").symlink_to(run.kb)
    patch.setattr(studies, "run_stages", lambda project, names: [])
    patch.setattr(studies, "digest", lambda project, name: name)
    return folder


@pytest.fixture
def place(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a project, whose knowledge base is the finished run's, and a study file."""
    return _plant(tmp_path, run, monkeypatch)


@pytest.fixture(scope="module")
def studied(run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Such a folder whose study two processes have worked out, and what it says; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        folder = _plant(tmp_path_factory.mktemp("studied"), run, patch)
        return folder, run_study(load_study(folder / "s.toml"), jobs=2)


def test_a_study_says_what_every_variant_is_worth(studied: tuple[Path, dict[str, Any]]) -> None:
    """Means, intervals and verdicts of every variant; a broken one says why; claims are judged."""
    place, found = studied
    folder = place / "runs" / "small" / "studies" / "s"
    assert json.loads((folder / "study.json").read_text()) == json.loads(json.dumps(found))
    assert (folder / "study.html").exists()
    losses, centers = found["ablations"]
    ours, published, broken = losses["variants"]
    assert ours["is_reference"] and "against_reference" not in ours
    for measure, each in published["measures"].items():
        assert len(each["per_seed"]) == 2
        assert each["low"] <= each["mean"] <= each["high"], measure
        apart = published["against_reference"][measure]
        assert apart["difference"] == pytest.approx(
            each["mean"] - ours["measures"][measure]["mean"], abs=1e-9
        )
        inside = apart["low"] <= 0 <= apart["high"]
        assert (apart["verdict"] == "no difference") == inside
    assert 'set train.start = "ridge"' in broken["error"]
    assert [v["name"] for v in centers["variants"]] == [
        "the reference",
        "one",
        "the name",
        "names at test",
    ]
    assert [v["with_name"] for v in centers["variants"]] == [False, False, True, False]
    assert set(centers["variants"][3]["measures"]) == {"seen", "unseen", "unseen_among_all", "zero_shot"}
    assert [claim["holds"] for claim in found["claims"]][1] is None
    told = study_text(found)
    assert "Which loss?" in told and "undecided: Better than a broken one." in told


def test_seeds_are_seeds(place: Path) -> None:
    """Every variant has its own settings for every seed, and all three sections take the seed."""
    study = load_study(place / "s.toml")
    for variants in (*study.variants.values(), study.reference):
        assert [v.train.seed for v in variants] == [3, 4]
        assert [v.localize.seed for v in variants] == [3, 4]
        assert [v.evaluate.seed for v in variants] == [3, 4]
    assert study.variants["centers", "one"][0].localize.k == 1
    assert study.reference[0].localize.k == 4


def test_what_is_done_is_not_done_again(
    studied: tuple[Path, dict[str, Any]], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped or longer study works out only what is missing, and comes to the same."""
    done, first = studied
    shutil.copytree(done / "runs" / "small" / "studies", place / "runs" / "small" / "studies")
    worked: list[Any] = []
    work_out = studies.compute_cells

    def watch(work: CellWork, wanted: Any, carry: Carry) -> None:
        worked.extend(key for key in wanted if not (work.cells / key / "cell.json").exists())
        work_out(work, wanted, carry)

    monkeypatch.setattr(studies, "compute_cells", watch)
    assert run_study(load_study(place / "s.toml"), jobs=1) == first
    assert worked == []
    (place / "s.toml").write_text(STUDY.replace("seeds = [3, 4]", "seeds = [3, 4, 5]"))
    run_study(load_study(place / "s.toml"), jobs=1)
    assert len(worked) == 5  # ours, published, broken, one, the name; names at test are ours


def test_cells_that_other_processes_compute_have_the_same_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of the study; `--jobs`, which counts processes of this machine, is refused there."""
    study = load_study(place / "s.toml")
    run_study(study, jobs=1)
    folder = place / "runs" / "small" / "studies"
    one = all_files(folder)
    shutil.rmtree(folder)
    engine = Elsewhere(seed=1)
    monkeypatch.setattr(studies, "engine_of", lambda settings: nullcontext(engine))
    with (place / "unibind.toml").open("a") as file:
        file.write('[run]\nengine = "ray"\naddress = "127.0.0.1:1"\n')
    run_study(load_study(place / "s.toml"))
    assert all_files(folder) == one
    assert len(engine.orders) == 10 and all("seed" in order.name for order in engine.orders)
    with pytest.raises(InputError, match="leave out --jobs"):
        run_study(load_study(place / "s.toml"), jobs=2)


def test_a_worker_that_does_not_see_the_knowledge_base_fails_no_variant(tmp_path: Path) -> None:
    """Its error is the run's; a cell would keep it as the variant's."""
    work = CellWork(tmp_path / "gone", tmp_path / "cells")
    variant = Variant(Localize(), Train(), Evaluate())
    with pytest.raises(KnowledgeBaseError, match="under the same path"):
        compute_cells(work, {"key": variant}, here)
    assert not (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ('train.loss = "official"', 'train.los = "official"'),
            "train.los: unknown key; did you mean `loss`",
        ),
        (('question = "Which loss?"\n', ""), "ablations.losses.question: Field required"),
        (("seeds = [3, 4]", "seeds = [3, 4, 3]"), "seeds: Value error, names 3 twice"),
        (
            ("seeds = [3, 4]", "seeds = [3, 4]\nset = { train.seed = 1 }"),
            "every seed would train the same heads",
        ),
        (('variant = "published"', 'variant = "gone"'), "is about losses, gone: no such variant"),
        (('project = "unibind.toml"', 'project = "no.toml"'), "no such project file"),
        (("[ablations.centers]", "[ablations.centers"), "not valid TOML"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_mistakes_are_told(place: Path, change: tuple[str, str], told: str) -> None:
    """In the study file, in a variant's settings, in a claim, and in what it names."""
    (place / "s.toml").write_text(STUDY.replace(*change))
    with pytest.raises(ProjectError, match=told):
        load_study(place / "s.toml")
    with pytest.raises(ProjectError, match="no such study file"):
        load_study(place / "gone.toml")


def test_a_study_file_of_a_windows_editor(place: Path) -> None:
    """A byte-order mark and Windows' line endings are no mistake."""
    (place / "s.toml").write_bytes(STUDY.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_study(place / "s.toml").file.name == "s"


def test_the_studies_of_this_repository_are_sound() -> None:
    """ablation.toml, docs/space.toml and their like load: every setting, every claim."""
    root = Path(studies.__file__).parents[2]
    files = [*root.glob("ablation*.toml"), root / "docs" / "space.toml"]
    assert len(files) >= 2
    for file in files:
        study = load_study(file)
        assert len(study.file.seeds) >= 5
        assert study.project == load_project(file.parent / study.file.project, study.file.set)
