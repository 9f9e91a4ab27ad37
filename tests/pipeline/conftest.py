"""What the tests share: a small finished run, its page, a strict parser; a project before its encoding."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from kb_builder.tables.schemas import CONTROLS, DESCRIPTIONS, REJECTS, SAMPLES, write_table
from pipeline.project import load_project
from pipeline.report.page import write_report
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from tests.commands import Told, in_process
from tests.once import once
from tests.planted import description_row, plant_project, vector_files, write_categories, write_store
from trainer.align.train import train
from trainer.evaluate.measure import evaluate
from trainer.localize.choose import localize
from trainer.settings import Evaluate, Localize, Train

HOSTILE = '<script>alert("x")</script>'
NAMES = {"a": "ash & oak", "b": HOSTILE, "c": '"><img src=x onerror=alert(1)>', "d": "</style><b>$x_1$"}
UNSEEN = {"c", "d"}
MODALITIES = ("image", "audio", "text")
DIM, FEATURES = 12, 20


@dataclass
class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text. Every tag must be closed in its turn."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open_tags or self.open_tags[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _parsed(markup: str) -> Page:
    page = Page()
    page.feed(markup)
    page.close()
    assert page.open_tags == []
    return page


def _build(root: Path) -> None:
    """A small run with real media, planted vectors and the trainer's own centers, heads and metrics."""
    kb, media = root / "kb", root / "media"
    media.mkdir(parents=True)
    rng = np.random.default_rng(5)
    meaning = {category: rng.normal(size=DIM) for category in NAMES}

    def near(x: np.ndarray, noise: float) -> np.ndarray:
        x = x + noise * rng.normal(size=x.shape)
        return (x / np.linalg.norm(x)).astype(np.float32)

    write_categories(kb, NAMES)
    vectors: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    described, controls, own, samples = [], [], [], []
    for c in NAMES:
        for i in range(6):
            words = f"{NAMES[c]} seen for the {i}th time"
            described.append(_description(f"{c}-{i}", kind="category", category_id=c, text=words))
            vectors.setdefault("category_texts", []).append((f"{c}-{i}", c, near(meaning[c], 0.5)))
        described += [
            _description(
                f"{c}-r{i}", kind="category", category_id=c, text=f"rejected {HOSTILE}", status=status
            )
            for i, status in enumerate(("no_name", "no_name", "dup_near"))
        ]
        for control, count in (("class_name", 1), ("templates", 6), ("random_words", 6)):
            for rank in range(count):
                row = f"{control}-{c}-{rank}"
                controls.append(
                    {"row_id": row, "control": control, "category_id": c, "rank": rank, "text": row}
                )
                vectors.setdefault("controls", []).append((row, c, near(meaning[c], 0.4)))
        for o in range(12):
            split = "test" if c in UNSEEN or o >= 9 else "val" if o >= 6 else "train"
            for modality in MODALITIES:
                sample = f"{c}-{o}-{modality}"
                uri = _medium(media, sample, modality, rng)
                samples.append(
                    {
                        "sample_id": sample,
                        "object_id": f"{c}-{o}",
                        "modality": modality,
                        "uri": uri,
                        "category_id": c,
                        "split": split,
                        "sha256": "0" * 64,
                        "bytes": 1,
                    }
                )
                if modality == "text":
                    vectors.setdefault("text_samples", []).append((sample, "text", near(meaning[c], 2.5)))
                    continue
                feature = np.concatenate([near(meaning[c], 0.6), np.full(FEATURES - DIM, len(modality) / 4)])
                vectors.setdefault("samples", []).append((sample, modality, near(feature, 0.0)))
                if modality == "image":
                    vectors.setdefault("zero_shot", []).append((sample, modality, near(meaning[c], 1.5)))
                own.append(_description(f"own-{sample}", kind="sample", sample_id=sample, source="facts"))
                vectors.setdefault("sample_texts", []).append(
                    (f"own-{sample}", modality, near(meaning[c], 1))
                )
    write_table(kb / "samples.parquet", samples, SAMPLES)
    write_table(kb / "descriptions" / "category" / "part-00000.parquet", described, DESCRIPTIONS)
    write_table(kb / "descriptions" / "sample" / "part-00000.parquet", own, DESCRIPTIONS)
    write_table(kb / "controls.parquet", controls, CONTROLS)
    gone = [{"sample_id": HOSTILE, "stage": "encode", "reason": f"broken{HOSTILE}.wav: cut short"}]
    write_table(kb / "rejects" / "encode.parquet", gone, REJECTS)
    places = {name: f"txt/{name}" for name in ("category_texts", "controls", "sample_texts")}
    places |= {"text_samples": "txt/samples", "samples": "img/samples", "zero_shot": "zs/samples"}
    write_store(
        kb,
        {places[name]: rows for name, rows in vectors.items()},
        roles={"text": "txt", "samples": "img", "zero_shot": "zs"},
        parameters=dict.fromkeys(("txt", "img", "zs"), 1_000_000),
    )
    localize(kb, Localize(k=4))


def _description(row_id: str, **fields: Any) -> dict[str, Any]:
    return description_row(row_id, filler="model-x", **{"source": "local", **fields})


def _medium(media: Path, sample: str, modality: str, rng: np.random.Generator) -> str:
    """Write one real file and return its uri."""
    if modality == "image":
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(media / f"{sample}.png")
        return f"{sample}.png"
    if modality == "audio":
        sf.write(media / f"{sample}.wav", rng.normal(scale=0.1, size=8000), 16000)
        return f"{sample}.wav"
    (media / f"{sample}.txt").write_text(f"{sample} says {HOSTILE}", encoding="utf-8")
    return f"{sample}.txt"


@dataclass(frozen=True)
class Run:
    """A finished run and its page."""

    root: Path
    metrics: dict[str, Any]
    target: Path
    names: ClassVar[dict[str, str]] = NAMES
    unseen: ClassVar[set[str]] = UNSEEN

    @property
    def kb(self) -> Path:
        return self.root / "kb"

    def write(self, target: Path, metrics: dict[str, Any] | None = None, run: Path | None = None) -> Path:
        return write_report(
            title=f"run of {HOSTILE}",
            run=run or self.root,
            kb=self.kb,
            data_root=self.root / "media",
            metrics=self.metrics if metrics is None else metrics,
            target=target,
        )


_STAGES = [
    {"name": "encode", "seconds": 12.345, "skipped": False},
    {"name": "localize", "seconds": 0.5, "skipped": True},
]


@pytest.fixture(scope="session")
def description() -> Callable[..., dict[str, Any]]:
    """A row of the table of descriptions; what is not given is empty."""
    return _description


@pytest.fixture(scope="session")
def parsed() -> Callable[[str], Page]:
    """The parser of pages: it fails where a tag is not closed in its turn."""
    return _parsed


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run, with its report written."""
    root = tmp_path_factory.mktemp("run")
    _build(root)
    train(root / "kb", root, Train(epochs=3))
    evaluation = evaluate(root / "kb", root, Evaluate(bootstrap=100, repeats=2, few_shot=(1, 8)))
    metrics = {"dataset": "planted", "seed": 0, "stages": _STAGES, **json.loads(json.dumps(evaluation))}
    done = Run(root, metrics, root / "report.html")
    done.write(done.target)
    return done


@pytest.fixture(scope="session")
def page(run: Run) -> Page:
    """The report of the trained run, parsed."""
    return _parsed(run.target.read_text(encoding="utf-8"))


def _record(
    modality: str, split: str, anchors: str, top1: float, *, half: float = 0.05, **other: Any
) -> dict[str, Any]:
    """One row of metrics.json with an interval of `half` to either side."""
    row = {
        "modality": modality,
        "split": split,
        "anchors": anchors,
        "k": 50,
        "scorer": "nearest",
        "model": "aligned",
        "top1": top1,
        "top1_low": max(0.0, top1 - half),
        "top1_high": min(1.0, top1 + half),
        "top5": min(1.0, top1 + 0.2),
        "chance": 0.25,
        "n": 40,
    }
    return {**row, **other}


_MIXED = (
    _record("event", "unseen", "permuted", 0.10),
    _record("event", "unseen", "llm_centers", 0.80),
    _record("event", "unseen", "class_name", 0.60),
    _record("image", "unseen", "llm_centers", 0.50),
    _record("image", "unseen", "class_name", 0.52),
    _record("image", "unseen", "permuted", 0.20),
    _record("text", "unseen", "llm_centers", 1.0),
    _record("text", "unseen", "class_name", 1.0),
    _record("text", "unseen", "permuted", 0.0),
    _record("image", "seen", "llm_centers", 0.30),
    _record("image", "seen", "class_name", 0.90),
    _record("image", "seen", "permuted", 0.0),
)


@pytest.fixture(scope="session")
def record() -> Callable[..., dict[str, Any]]:
    """A recognition row of metrics.json: modality, split, anchors, top-1, and what else is given."""
    return _record


@pytest.fixture
def mixed() -> dict[str, Any]:
    """Metrics in which the LLM centers win, lose and tie."""
    return {"recognition": list(_MIXED)}


@pytest.fixture
def study() -> dict[str, Any]:
    """The result of a small ablation study: a part that matters, one that hardly does, three claims."""
    return dict(json.loads((Path(__file__).parent / "study.json").read_text(encoding="utf-8")))


# What a manifest takes, and no terminal should be sent: C1's CSI, a turn of the direction of writing, a line
# separator, C1's next line, a character of no width. C0 is refused in manifests, but not in file names.
EVIL = "\x9b31m\u202e\u2028\x85x\u200b"


@dataclass(frozen=True)
class Hostile:
    """A finished run of a project all of whose names steer a terminal, and what its command printed."""

    root: Path
    printed: bytes

    @property
    def project(self) -> Path:
        return self.root / "unibind.toml"

    @property
    def kb(self) -> Path:
        return self.root / "runs" / "evil" / "kb"


def _write_hostile(root: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for place, colour in enumerate(("red", "green", "blue")):
        shade = np.full(3, 30)
        shade[place] = 200
        for number, split in enumerate(("train", "train", "val", "test")):
            for modality, ending in (("image", "png"), ("text", "txt")):
                uri = f"{colour}{number}{EVIL}.{ending}"
                if modality == "image":
                    pixels = shade + rng.integers(-30, 30, (48, 48, 3))
                    Image.fromarray(pixels.astype(np.uint8)).save(root / uri, format="png")
                else:
                    (root / uri).write_text(f"something {colour} {EVIL} {number}", encoding="utf-8")
                row = {"sample_id": f"s{EVIL}{colour}{number}{modality}", "uri": uri, "modality": modality}
                row |= {"category": f"{colour}{EVIL}\t\n{colour}", "split": split}
                row |= {"object_id": f"o{EVIL}{colour}{number}", "description": f"It is {EVIL}\n{colour}."}
                rows.append(row)
    (root / f"bad{EVIL}.png").write_bytes(b"junk")
    for name in ("bad", "gone"):
        broken = {**rows[0], "sample_id": f"{name}{EVIL}", "uri": f"{name}{EVIL}.png"}
        rows.append({key: value for key, value in broken.items() if key != "description"})
    lines = (json.dumps(row) for row in rows)
    (root / "m.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (root / "unibind.toml").write_text(
        'name = "evil"\n[data]\nmanifest = "m.jsonl"\n[describe.categories]\ndescriber = "fake"\nn = 3\n'
        '[localize]\nk = 3\nrule = "name"\nwith_name = true\n[train]\nepochs = 2\n'
        "[evaluate]\nbootstrap = 50\nfew_shot = []\nrepeats = 0\n",
        encoding="utf-8",
    )


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    """The run, made by the command as a user runs it; its folder is hostile, too (C0). Not to be changed."""
    name = f"a\x1b[31m\n{EVIL}"

    def make(folder: Path) -> None:
        (folder / name).mkdir()
        _write_hostile(folder / name)
        done = subprocess.run(
            [sys.executable, "-c", "from pipeline.cli.main import main; main()", "run"],
            cwd=folder / name,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        (folder / "printed").write_bytes(done.stdout)

    made = once(tmp_path_factory, "hostile", make)
    return Hostile(made / name, (made / "printed").read_bytes())


@pytest.fixture(scope="session")
def unibind() -> Callable[..., Told]:
    """`unibind(*arguments, folder=…)`: a command run in this process, which has its models loaded already."""
    return in_process


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder of the test's own, not made yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("UNIBIND_MODELS", str(folder))
    return folder


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of tests/planted.py with small parts, run up to its descriptions; not to be changed."""
    path = plant_project(tmp_path_factory.mktemp("described") / "project")
    sizes = "[encode]\ntexts_per_part = 4\nsamples_per_part = 5"
    path.write_text(path.read_text(encoding="utf-8").replace("[encode]", sizes), encoding="utf-8")
    project = load_project(path)
    before = plan(project)
    run_stages(project, before[: before.index("encode")])
    return path


@pytest.fixture(scope="session")
def by_one_process(described: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of its knowledge base as one process encodes them, with their SHA-256."""
    folder = tmp_path_factory.mktemp("one") / "project"
    one = Path(shutil.copytree(described.parent, folder)) / described.name
    run_stages(load_project(one), ["encode"])
    return vector_files(one)
