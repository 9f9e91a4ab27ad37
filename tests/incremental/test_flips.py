"""One bit, or more, of every kind of file a run leaves: named by `kb verify`, believed by nobody, healed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.torture.wounds import ASKS_FOR_IT, NOT_REMADE, Wound, flip, is_note, kinds, restore, wounds
from data import files, reads, seals
from data.errors import UniBindError
from kb_builder.browse import overview
from kb_builder.browse import query as browse
from kb_builder.describe import cited
from kb_builder.encode import exchange
from kb_builder.store import shards
from pipeline.compare import runs as compare
from pipeline.predict import recognise as predict
from pipeline.predict.answers import Prediction
from pipeline.project import ProjectFile, load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.verify import verify_project

Answer = Callable[[ProjectFile, Path], str]


@pytest.fixture(autouse=True)
def disk_that_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time of an inode's change does not tell either: rot changes none."""
    honest = files.signature

    def at_rest(path: Path) -> files.Signature | None:
        seen = honest(path)
        return None if seen is None else (seen[0], seen[1], 0, 0)

    for module in (files, reads, seals, shards, cited):
        monkeypatch.setattr(module, "signature", at_rest)
    yield
    forget()


def forget() -> None:
    """What a process remembers of files is gone with it."""
    for memory in (seals._held, seals._loaded, reads._hashes, reads._from_earlier):
        memory.clear()
    shards._footer.cache_clear()


def predicted(project: ProjectFile, folder: Path) -> str:
    found = predict.predict_files(project, [(folder / "media/0-3.bmp", None)], say=lambda note: None)
    return str([_known(replace(each, file="")) for each in found])


def _known(prediction: Prediction) -> Prediction:
    """Without probabilities: where an evaluation is not of what is there, it is said and none is given."""
    if prediction.uncalibrated is None:
        _probabilities.add(tuple(each.probability for each in prediction.answers))
    answers = tuple(replace(answer, probability=None) for answer in prediction.answers)
    said = None if prediction.uncalibrated is None else "said"
    return replace(prediction, answers=answers, uncalibrated=said)


_probabilities: set[tuple[float | None, ...]] = set()  # all that were given; there is to be one


def retrieved(project: ProjectFile, folder: Path) -> str:
    return str(predict.retrieve_samples(project, "a red fox", say=lambda note: None))


def compared(project: ProjectFile, folder: Path) -> str:
    told = compare.compare([compare.open_run(project.run), compare.open_run(folder / "other")])
    return told.as_json()


def exported(project: ProjectFile, folder: Path) -> str:
    target = folder / "export"
    shutil.rmtree(target, ignore_errors=True)
    exchange.export_table(project.kb, "category_texts", target, form="npy")
    return str([(path.name, files.hash_file(path)) for path in sorted(target.rglob("*")) if path.is_file()])


def vectors(project: ProjectFile, folder: Path) -> str:
    return browse.sql(project.kb, "SELECT * FROM v_category_vectors").to_text(with_sql=False)


COMMANDS: dict[str, Answer] = {
    "predict": predicted,
    "retrieve": retrieved,
    "compare": compared,
    "stats": lambda project, _: overview.stats(project.kb).to_text(with_sql=False),
    "show": lambda project, _: overview.show(project.kb, "pond").to_text(with_sql=False),
    "nearest": lambda project, _: browse.sql(project.kb, "SELECT * FROM v_category_vectors").to_text(
        with_sql=False
    ),
    "export": exported,
}


class Attack:
    """A finished run and its answers; wounds are inflicted on it one by one."""

    def __init__(self, folder: Path, contents_of: Callable[[ProjectFile], dict[str, Any]]) -> None:
        self.contents = lambda: contents_of(self.project)
        self.folder = folder
        self.project = load_project(folder / "unibind.toml")
        shutil.copytree(self.project.run, folder / "other")
        self.run_all()
        self.whole = folder / "whole"
        shutil.copytree(self.project.run, self.whole)
        self.before = self.contents()
        self.answers = {name: {self.ask(name)} for name in COMMANDS}
        # Where an evaluation is not of what is there, neither its choice of a model nor its constants count.
        (self.project.run / "ranks.parquet").unlink()
        self.answers["predict"].add(self.ask("predict"))
        self.heal()

    def run_all(self) -> None:
        forget()
        with contextlib.redirect_stderr(io.StringIO()):
            run_stages(self.project, plan(self.project))

    def ask(self, name: str) -> str:
        forget()
        return COMMANDS[name](self.project, self.folder)

    def heal(self) -> None:
        restore(self.project.run, self.whole)

    def verified(self) -> str:
        forget()
        return str(verify_project(self.project))

    def unbelieved(self, path: Path) -> list[str]:
        """The commands that answer otherwise than before, and do not fail with a line."""
        wrong = []
        for name, expected in self.answers.items():
            try:
                if self.ask(name) not in expected:
                    wrong.append(name)
            except UniBindError as error:
                if "\n" in str(error):
                    wrong.append(f"{name}: {error}")
        return wrong


@pytest.fixture(scope="module")
def attack(
    finished_once: Path,
    tmp_path_factory: pytest.TempPathFactory,
    contents_of: Callable[[ProjectFile], dict[str, Any]],
) -> Attack:
    """A copy of a finished project, to be wounded and restored."""
    return Attack(
        Path(shutil.copytree(finished_once, tmp_path_factory.mktemp("attack") / "project")), contents_of
    )


def test_an_untouched_run_is_clean(attack: Attack) -> None:
    """Every file is counted and none is named."""
    told = attack.verified()
    assert told.endswith("clean") and "NOT" not in told, told


def test_a_flip_of_every_file_is_named(attack: Attack) -> None:
    """`kb verify` names each file, wherever one bit of it is another, and ends."""
    silent = []
    for kind, path in kinds(attack.project.run).items():
        size = path.stat().st_size
        for place in {0, size // 3, size // 2, max(0, size - 9), max(0, size - 1)} if size else ():
            flip(path, place)
            told = attack.verified()
            if path.name not in told or "NOT clean" not in told:
                silent.append((kind, place, size, told[-400:]))
            flip(path, place)
    assert attack.verified().endswith("\nclean")
    assert not silent, silent


def _try(attack: Attack, kind: str, path: Path, wound: Wound, *, run: bool) -> list[str]:
    """What does not hold of one wound; the run is whole again afterwards."""
    wrong = []
    wound.inflict(path)
    try:
        told = attack.verified()
        struck = [path] if wound.other is None else [path, wound.other]
        if ("NOT clean" in told) == is_note(wound, path) or not all(each.name in told for each in struck):
            wrong.append(f"verify: {told[-300:]}")
        wrong += attack.unbelieved(path)
        if len(_probabilities) > 1:
            wrong.append("predict: other probabilities")
        if run:
            wrong += _unhealed(attack, struck)
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    finally:
        attack.heal()
    return [f"{kind} {wound}: {each}" for each in wrong]


def _unhealed(attack: Attack, struck: list[Path]) -> list[str]:
    """What is not as it was after `unibind run`, or after what its one line advises."""
    lost = any(path.name in NOT_REMADE for path in struck)
    try:
        attack.run_all()
    except (UniBindError, OSError) as error:
        if lost:
            return [] if ASKS_FOR_IT.search(str(error)) else [f"run: {error}"]
        told_to = [path for path in struck if path.name in str(error)]
        if "delete it" not in str(error) or not told_to:
            return [f"run: {error}"]
        for path in told_to:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        attack.run_all()
    told = attack.verified()
    wrong = [] if told.endswith("\nclean") or lost else [f"after run: {told[-300:]}"]
    now, before = attack.contents(), attack.before
    wrong += [f"after run: {name}" for name in now.keys() | before if now.get(name) != before.get(name)]
    return wrong


def test_a_wound_of_each_file_heals_or_is_told(attack: Attack) -> None:
    """A wound of each file kind, in turns: no answer is another than before, and a run makes it whole."""
    wrong = []
    for number, (kind, path) in enumerate(kinds(attack.project.run).items()):
        found = list(wounds(path, attack.project.run))
        wrong += _try(attack, kind, path, found[number % len(found)], run=True)
    assert not wrong, "\n".join(wrong)


_PLACES = 8  # of flips
_WOUNDS = ("swap", "gone", "folder", "pipe", "empty", "cut", *(f"flip {n}" for n in range(_PLACES)))


@pytest.mark.slow
@pytest.mark.parametrize("name", _WOUNDS)
def test_every_wound_of_every_file_heals_or_is_told(attack: Attack, name: str) -> None:
    """One kind of wound after the other, of each file kind."""
    wrong, struck = [], 0
    for kind, path in kinds(attack.project.run).items():
        found = list(wounds(path, attack.project.run, places=_PLACES))
        flips = [wound for wound in found if wound.name == "flip"]
        fitting = {each.name: each for each in found if each.name != "flip"}
        fitting |= {f"flip {number}": wound for number, wound in enumerate(flips)}
        if name in fitting:
            wrong += _try(attack, kind, path, fitting[name], run=True)
            struck += 1
    assert not wrong, "\n".join(wrong)
    assert struck > 20


def test_a_mark_that_is_gone_is_told(attack: Attack) -> None:
    """Its stage may only have been stopped, so it is a note, which says that the stage runs again."""
    mark = attack.project.run / "stages" / "encode.json"
    content = mark.read_bytes()
    mark.unlink()
    told = attack.verified()
    mark.write_bytes(content)
    assert "stages/encode.json: its stage was stopped, or the mark deleted; the stage will run again" in told
    assert "NOT clean" not in told and "mark missing" not in attack.verified()


def test_a_run_of_an_earlier_version_is_clean(finished: Path) -> None:
    """Marks without a record of what was read, and no checksums: notes that say what the next run does."""
    project = load_project(finished / "unibind.toml")
    for path in (project.run / "stages").glob("*.json"):
        if path.name.endswith(".reads.json"):
            path.unlink()
        else:
            mark = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps({key: mark[key] for key in ("seconds", "summary", "outputs")}))
    for folder in (project.run, project.kb):
        seals.discard(folder)
    found = verify_project(project)
    assert found.clean, str(found)
    assert {"mark of an earlier version", "no checksums yet"} <= {what for _, what in found.totals}
