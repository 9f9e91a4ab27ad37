"""The report: true to its numbers, whole in one file, and safe with hostile names and texts."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from PIL import Image

from data.files import write_json
from kb_builder.schemas import (
    CATEGORIES,
    CONTROLS,
    DESCRIPTIONS,
    REJECTS,
    SAMPLES,
    read_rows,
    write_table,
)
from kb_builder.store import write_vectors
from pipeline.report import random_recalls, unified_samples, write_report
from pipeline.report_html import clipped, el, join
from pipeline.report_kb import knowledge_base_section
from pipeline.report_labels import HEIGHT, LETTER, place_labels
from pipeline.report_mistakes import worst_confusions
from pipeline.report_results import calibration_section, headline
from pipeline.report_space import Picture, fitted, labels, space_section
from trainer.centers import load_centers, localize
from trainer.evaluate import evaluate
from trainer.inputs import open_kb
from trainer.records import SampleSet
from trainer.settings import Evaluate, Localize, Scorer, Train
from trainer.train import train

HOSTILE = '<script>alert("x")</script>'
NAMES = {"a": "ash & oak", "b": HOSTILE, "c": '"><img src=x onerror=alert(1)>', "d": "</style><b>$x_1$"}
UNSEEN = {"c", "d"}
MODALITIES = ("image", "audio", "text")
DIM, FEATURES = 12, 20


@dataclass
class Page(HTMLParser):
    """A parsed page: its tags with their attributes, its text, and whether every tag was closed in turn."""

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


def parsed(markup: str) -> Page:
    page = Page()
    page.feed(markup)
    page.close()
    assert page.open_tags == []
    return page


def build(root: Path) -> None:
    """A small run with real media, planted vectors and the trainer's own centers, heads and metrics."""
    kb, media = root / "kb", root / "media"
    media.mkdir(parents=True)
    rng = np.random.default_rng(5)
    meaning = {category: rng.normal(size=DIM) for category in NAMES}

    def near(x: np.ndarray, noise: float) -> np.ndarray:
        x = x + noise * rng.normal(size=x.shape)
        return (x / np.linalg.norm(x)).astype(np.float32)

    categories = [
        {"category_id": c, "name": name, "aliases": [], "parent": None, "notes": None}
        for c, name in NAMES.items()
    ]
    write_table(kb / "categories.parquet", categories, CATEGORIES)
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
    places = {
        "category_texts": "txt/category_texts",
        "controls": "txt/controls",
        "text_samples": "txt/samples",
        "sample_texts": "txt/sample_texts",
        "samples": "img/samples",
        "zero_shot": "zs/samples",
    }
    for name, rows in vectors.items():
        write_vectors(
            kb / "embeddings" / places[name],
            ids=[row for row, _, _ in rows],
            groups=[group for _, group, _ in rows],
            vectors_ND=np.stack([vector for _, _, vector in rows]),
        )
    for folder in ("txt", "img", "zs"):
        write_json(kb / "embeddings" / folder / "encoder.json", {"name": folder, "parameters": 1_000_000})
    write_json(kb / "embeddings" / "encoders.json", {"text": "txt", "samples": "img", "zero_shot": "zs"})
    localize(kb, Localize(k=4))


def _description(row_id: str, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"row_id": row_id, "text": row_id, "status": "ok", "source": "local", **fields}
    for column in DESCRIPTIONS:
        empty = "model-x" if pa.types.is_string(column.type) else 0
        row.setdefault(column.name, None if column.nullable else empty)
    return row


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


STAGES = [
    {"name": "encode", "seconds": 12.345, "skipped": False},
    {"name": "localize", "seconds": 0.5, "skipped": True},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run, with its report written."""
    root = tmp_path_factory.mktemp("run")
    build(root)
    train(root / "kb", root, Train(epochs=3))
    evaluation = evaluate(root / "kb", root, Evaluate(bootstrap=100))
    metrics = {"dataset": "planted", "seed": 0, "stages": STAGES, **json.loads(json.dumps(evaluation))}
    done = Run(root, metrics, root / "report.html")
    done.write(done.target)
    return done


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    """The report of the trained run, parsed."""
    return parsed(run.target.read_text(encoding="utf-8"))


def test_the_page_is_one_file_that_runs_nothing(run: Run, page: Page) -> None:
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


def test_hostile_names_and_texts_are_shown_as_they_are(page: Page) -> None:
    """Markup in a title, a category, a text, a sample id and a reject reason is text on the page."""
    for name in NAMES.values():
        assert name in page.text
    assert f"run of {HOSTILE}" in page.text
    assert f"rejected {HOSTILE}" in page.text
    assert f"broken{HOSTILE}.wav: cut short" in page.text
    assert f"says {HOSTILE}" in page.text  # a text sample among the mistakes
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert all(
        (attributes.get("src") or "").startswith("data:image/jpeg")
        for tag, attributes in page.tags
        if tag == "img"
    )


def test_the_result_table_shows_every_number_of_the_metrics(run: Run) -> None:
    """Each recognition row's accuracy and interval stands in the row of its modality, under its split."""
    markup = run.target.read_text(encoding="utf-8")
    section = markup[markup.index('id="recognition"') : markup.index('id="zero-shot"')]
    table = section[section.index("<tbody>") : section.index("</tbody>")]
    groups = re.split(r'<tr class="group">', table)[1:]
    titles = ("seen categories", "unseen categories", "unseen samples, all categories as candidates")
    blocks = dict(zip(("seen", "unseen", "unseen_among_all"), groups, strict=True))
    for title, block in zip(titles, groups, strict=True):
        assert title in block
    for record in run.metrics["recognition"]:
        row = next(r for r in blocks[record["split"]].split("<tr>") if f">{record['modality']}</th>" in r)
        cells = parsed(f"<table><tr>{row.split('<tr ')[0]}</table>").text
        assert (
            f"{100 * record['top1']:.1f} {100 * record['top1_low']:.1f}–{100 * record['top1_high']:.1f}"
            in cells
        )
        assert f" {record['n']}" in cells


def test_the_headline_says_the_mean_and_the_best_control() -> None:
    """The sentence gives the unseen mean over media against chance, and admits a control that is better."""
    rows = [
        {
            "modality": modality,
            "split": "unseen",
            "anchors": anchors,
            "k": 5,
            "scorer": "nearest",
            "model": "aligned",
            "top1": top1,
            "top1_low": top1 - 0.1,
            "top1_high": top1 + 0.1,
            "top5": 1.0,
            "chance": 0.125,
            "n": 30,
        }
        for modality, llm, name in (("image", 0.4, 0.5), ("audio", 0.3, 0.4), ("text", 0.9, 0.1))
        for anchors, top1 in (("llm_centers", llm), ("class_name", name))
    ]
    words = parsed(headline({"recognition": rows})).text
    assert "35.0% of 60 samples (mean of 2 modalities); chance is 12.5%." in words
    assert words.endswith("The best control, class name, reaches 45.0%: the LLM centers do not beat it.")
    better = [dict(row, top1=0.1) if row["anchors"] == "class_name" else row for row in rows]
    assert parsed(headline({"recognition": better})).text.endswith(
        "reaches 10.0%: less than the LLM centers."
    )
    untrained = [dict(row, model="zero_shot") for row in rows]
    assert "no label used but for scoring" in parsed(headline({"recognition": untrained})).text


@pytest.mark.parametrize(
    ("scorer", "subject"),
    [
        ("logsumexp", "the soft maximum over the LLM-written centers names"),
        ("mean", "the mean of the LLM-written centers names"),
        ("medoid", "the most central LLM-written center names"),
    ],
)
def test_the_page_says_by_which_scorer(run: Run, tmp_path: Path, scorer: Scorer, subject: str) -> None:
    """Headline and rule name the scorer that was measured, and the mistakes are counted with it."""
    metrics = json.loads(json.dumps(evaluate(run.kb, run.root, Evaluate(bootstrap=10, scorer=scorer))))
    words = parsed(run.write(tmp_path / "report.html", metrics).read_text(encoding="utf-8")).text
    assert f"{subject} the right category" in words
    assert f"({scorer})" in words or f"Rule: {scorer} of" in words
    base = open_kb(run.kb)
    _, confusions = worst_confusions(base, unified_samples(base, run.root), labels_used=True, scorer=scorer)
    rows = [r for r in metrics["recognition"] if (r["split"], r["anchors"]) == ("unseen", "llm_centers")]
    wrong = sum(round(r["n"] * (1 - r["top1"])) for r in rows)
    assert sum(one.count for one in confusions) == wrong > 0
    assert all(m.own_score is not None and m.own_score <= m.score for one in confusions for m in one.examples)


def test_the_calibration_table_shows_every_number(run: Run, page: Page) -> None:
    """Each row of the metrics, with a dash where no temperature was fitted; without rows, why."""
    rows = run.metrics["calibration"]
    assert {row["temperature"] is None for row in rows} == {True, False}
    words = parsed(calibration_section(run.metrics)).text
    for row in rows:
        fitted = [_told(row["temperature"], 4)]
        fitted += [_told(row[name], 3) for name in ("nll_before", "nll", "ece_before", "ece")]
        assert f"{' '.join(fitted)} {row['n_fit']} {row['n']}" in words
    assert "Calibration" in page.text
    assert "Not measured" in parsed(calibration_section({})).text


def _told(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def test_transductive_results_carry_a_warning(run: Run) -> None:
    """Before the first number, and only where it is so."""
    assert "Transductive" not in parsed(headline(run.metrics)).text
    warned = parsed(headline({**run.metrics, "transductive": True})).text
    assert warned.startswith("Transductive: unlabelled samples of every split, the test split too")


def test_the_heat_maps_hold_every_ordered_pair(run: Run) -> None:
    """Three modalities make six ordered pairs a level; each cell is that pair's recall@10 in percent."""
    markup = run.target.read_text(encoding="utf-8")
    section = markup[markup.index('id="retrieval"') : markup.index('id="balance"')]
    shown = re.findall(r'<td class="cell[^"]*" style="--v:([\d.]+)">(\d+)</td>', section)
    order = sorted(MODALITIES, key=("image", "text", "audio").index)
    recall = {(r["level"], r["query"], r["gallery"]): r["r10"] for r in run.metrics["retrieval"]}
    wanted = [recall[level, q, g] for level in ("category", "object") for q in order for g in order if q != g]
    assert shown == [(f"{value:.3f}", f"{100 * value:.0f}") for value in wanted]


def test_random_recall_is_the_share_of_lucky_draws() -> None:
    """The closed form equals counting every set of ten that could be drawn from a small gallery."""

    def samples(modality: str, categories: list[int]) -> SampleSet:
        n = len(categories)
        return SampleSet(
            modality=modality,
            sample_ids=tuple(f"{modality}{i}" for i in range(n)),
            splits_N=np.array(["test"] * n),
            category_N=np.array(categories),
            object_N=np.full(n, -1),
            vectors_ND=np.zeros((n, 2), np.float32),
        )

    gallery = [0, 0, *[1] * 5, *[2] * 6]
    chances = random_recalls({"image": samples("image", [0, 1, 3]), "audio": samples("audio", gallery)})
    draws = list(combinations(gallery, 10))
    lucky = [sum(label in draw for draw in draws) / len(draws) for label in (0, 1)]
    assert chances["category", "image", "audio"] == pytest.approx(sum(lucky) / 2)
    assert "object" not in {level for level, _, _ in chances}


def test_confusions_are_counted_as_by_hand(run: Run) -> None:
    """The commonest confusions equal a plain recount of nearest centers, sample by sample."""
    base = open_kb(run.kb)
    space = unified_samples(base, run.root)
    split, confusions = worst_confusions(base, space, labels_used=True)
    assert split == "unseen"
    centers = load_centers(base)
    unseen = [base.index[c] for c in sorted(UNSEEN)]
    recount: Counter[tuple[str, str]] = Counter()
    for samples in space.values():
        for row in np.flatnonzero(np.isin(samples.category_N, unseen)):
            best = {
                c: float(
                    np.round(centers.vectors_ND[centers.category_N == c] @ samples.vectors_ND[row], 6).max()
                )
                for c in unseen
            }
            named = max(unseen, key=lambda c: best[c])
            if named != samples.category_N[row]:
                recount[base.names[samples.category_N[row]], base.names[named]] += 1
    assert recount, "the planted world must have mistakes, or this test says nothing"
    assert {(one.true, one.named): one.count for one in confusions} == dict(recount)
    assert all(one.of == 36 for one in confusions)


def test_a_sample_that_is_gone_is_named_and_the_page_is_whole(run: Run, tmp_path: Path) -> None:
    """A file removed since the run costs its picture, not the report."""
    target = write_report(
        title="moved",
        run=run.root,
        kb=run.kb,
        data_root=tmp_path / "nowhere",
        metrics=run.metrics,
        target=tmp_path / "report.html",
    )
    page = parsed(target.read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert ".png" in page.text[page.text.index("Mistakes") :]


def test_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    """Page and picture depend on nothing but the run."""
    again = run.write(tmp_path / "report.html")
    assert again.read_bytes() == run.target.read_bytes()
    assert (tmp_path / "space.png").read_bytes() == (run.root / "space.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "space.png"]


def test_the_picture_beside_the_report_is_a_png(run: Run) -> None:
    """space.png opens and is wide enough for a README."""
    with Image.open(run.root / "space.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000


def test_a_run_without_training_says_so(run: Run, tmp_path: Path) -> None:
    """Without heads the zero-shot numbers are the run's, and nothing claims an aligned space."""
    evaluation = evaluate(run.kb, tmp_path, Evaluate(bootstrap=100))
    target = run.write(tmp_path / "report.html", json.loads(json.dumps(evaluation)), tmp_path)
    text = parsed(target.read_text(encoding="utf-8")).text
    assert "its table above is the zero-shot table" in text
    assert "Nothing was trained." in text
    assert "After: the unified space" not in text


def test_a_run_without_labels_or_numbers_is_still_a_page(run: Run, tmp_path: Path) -> None:
    """Empty metrics give sentences, not holes or errors."""
    text = parsed(run.write(tmp_path / "report.html", {}).read_text(encoding="utf-8")).text
    for words in ("no labelled sample to score", "Nothing to retrieve", "Balance is between modalities"):
        assert words in text


def test_a_run_without_test_samples_draws_no_space(run: Run, tmp_path: Path) -> None:
    """Without a test split there is a page that says so, and no picture of other samples stays beside it."""
    kb = tmp_path / "kb"
    shutil.copytree(run.kb, kb)
    rows = [dict(row, split="train") for row in read_rows(kb / "samples.parquet")]
    write_table(kb / "samples.parquet", rows, SAMPLES)
    (tmp_path / "space.png").write_bytes(b"of an earlier run")
    moved = Run(tmp_path, {}, tmp_path / "report.html")
    text = parsed(moved.write(moved.target, run=run.root).read_text(encoding="utf-8")).text
    assert "There are no test samples to draw." in text
    assert "No labelled sample could be scored." in text
    assert not (tmp_path / "space.png").exists()


def test_the_stages_are_told_with_their_times(page: Page) -> None:
    """Seconds of each stage, and that a skipped one was skipped; only work done now is added up."""
    assert "12.3 seconds of work" in page.text
    assert "localize 0.5 skipped" in page.text


def test_the_knowledge_base_is_counted(run: Run, page: Page) -> None:
    """Texts by category, model and status equal a plain count over the table."""
    rows = read_rows(run.kb / "descriptions" / "category")
    statuses = Counter(row["status"] for row in rows)
    assert (
        f"4 categories, {len(rows)} texts written about them, {statuses['ok']} kept: 6 to 6 each."
        in page.text
    )
    assert f"category local model-x {len(rows)} {statuses['ok']}" in page.text
    assert f"no_name category {statuses['no_name']}" in page.text
    best = [r for r in read_rows(run.kb / "centers.parquet") if r["category_id"] == "a" and r["rank"] < 3]
    texts = {row["row_id"]: row["text"] for row in rows}
    assert " ".join(texts[row["row_id"]] for row in best) in page.text


def test_quarantined_samples_are_listed_with_their_reason(page: Page) -> None:
    """A rejected sample stands on the page with its stage."""
    assert "1 sample left out without stopping the run: 1 at encode." in page.text
    assert f"{HOSTILE} encode broken" in page.text


def test_a_large_knowledge_base_is_counted_and_cut(tmp_path: Path) -> None:
    """A thousand categories with long texts stay small on the page, and what is left out is counted."""
    names = [f"category {i:04d}" for i in range(1000)]
    categories = [
        {"category_id": name, "name": name, "aliases": [], "parent": None, "notes": None} for name in names
    ]
    write_table(tmp_path / "categories.parquet", categories, CATEGORIES)
    rows = [
        _description(f"{name}/{i}", kind="category", category_id=name, text=f"{i} " + "long " * 500)
        for name in names[1:]
        for i in range(2)
    ]
    write_table(tmp_path / "descriptions" / "category" / "part-00000.parquet", rows, DESCRIPTIONS)
    section = knowledge_base_section(tmp_path)
    text = parsed(section).text
    assert len(section) < 200_000
    assert "1,000 categories, 1,998 texts written about them, 1,998 kept: 0 to 2 each." in text
    assert "Without any text, and never to be named: 1." in text
    assert "940 more are not shown" in text
    assert "939 more categories are not shown" in text


def _picture(n: int, categories: int, kinds: tuple[str, ...]) -> Picture:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % categories
    return Picture(
        xy_N2=rng.normal(size=(n + categories, 2)) * 30,
        kinds=tuple(kinds[i % len(kinds)] for i in range(n)) + ("center",) * categories,
        category_N=np.concatenate([labels, np.arange(categories)]),
        ids=tuple(str(i) for i in range(n + categories)),
        categories=tuple(f"category {i}" for i in range(categories)),
    )


def test_the_map_is_scaled_alike_in_both_directions() -> None:
    """Points fill the panel without stretching: ratios of distances stay, and y points down."""
    xy_N2 = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
    (a, b, c), height = fitted(xy_N2)
    assert 165 < height < 330, "twice as wide as high, with a margin"
    assert np.linalg.norm(b - a) == pytest.approx(2 * np.linalg.norm(c - a))
    assert c[1] < a[1]
    assert np.isfinite(fitted(np.zeros((3, 2)))[0]).all()


def test_labels_stay_inside_and_apart() -> None:
    """Ten labels among scattered centers neither leave the panel nor cover one another."""
    picture = _picture(60, 10, ("image", "audio"))
    placed = labels(picture, *fitted(picture.xy_N2))
    assert len(placed) == 10
    boxes = [(label.x, label.y, LETTER * len(label.words)) for label in placed]
    assert all(wide / 2 <= x <= 330 - wide / 2 for x, _, wide in boxes)
    for (x, y, wide), (other_x, other_y, other) in combinations(boxes, 2):
        assert abs(x - other_x) >= (wide + other) / 2 or abs(y - other_y) >= HEIGHT - 1e-9


def test_names_of_one_place_are_led_outwards() -> None:
    """Eight categories on one spot: names do not overlap, and a line leads to those that stand away."""
    spots = {key: (100.0 + key, 100.0) for key in range(8)}
    words = {key: f"category {key}" for key in spots}
    placed = place_labels(spots, words, size=(330.0, 330.0), dots_N2=np.zeros((0, 2)))
    for one, other in combinations(placed, 2):
        assert abs(one.x - other.x) >= LETTER * len("category 0") or abs(one.y - other.y) >= HEIGHT - 1e-9
    leaders = [label for label in placed if label.leader]
    assert leaders
    for label in leaders:
        start, end = label.leader or ((0, 0), (0, 0))
        assert np.hypot(start[0] - spots[label.key][0], start[1] - 100) == pytest.approx(5)
        assert abs(end[0] - label.x) <= LETTER * len(label.words) / 2 + 1e-9
        assert abs(end[1] - label.y) <= HEIGHT / 2 + 1e-9


def test_a_crowded_map_labels_some_and_draws_every_dot() -> None:
    """Sixty categories get forty labels; every sample is one dot of either panel."""
    picture = _picture(300, 60, ("image", "audio", "event"))
    assert len(labels(picture, *fitted(picture.xy_N2))) == 40
    markup = space_section({"after": picture})
    dots = [attributes["d"] for tag, attributes in parsed(markup).tags if tag == "path"]
    assert sum((path or "").count("h0") for path in dots) == 2 * 300


def _markup() -> Iterator[tuple[str, str]]:
    yield str(el("p", "a < b & c")), "<p>a &lt; b &amp; c</p>"
    yield str(el("p", el("b", "x"), "<i>")), "<p><b>x</b>&lt;i&gt;</p>"
    yield str(el("a", "x", href='"><script>')), '<a href="&quot;&gt;&lt;script&gt;">x</a>'
    yield (
        str(el("line", x1=1.0, y1=2.345, stroke_width=2, class_=None)),
        '<line x1="1" y1="2.35" stroke-width="2"></line>',
    )
    yield str(el("p", f"{el('b', 'x')}")), "<p>&lt;b&gt;x&lt;/b&gt;</p>"
    yield str(join(["<", el("b")], "&")), "&lt;&amp;<b></b>"


@pytest.mark.parametrize(("made", "wanted"), list(_markup()))
def test_markup_escapes_by_construction(made: str, wanted: str) -> None:
    """Strings are text wherever they stand; only elements are markup; an f-string of one is text again."""
    assert made == wanted


def test_long_texts_are_cut_visibly() -> None:
    """A clipped text has no line breaks, fits its limit and shows that something is missing."""
    assert clipped("a\n b", 10) == "a b"
    assert clipped("abcdefghij", 5) == "abcd…"
