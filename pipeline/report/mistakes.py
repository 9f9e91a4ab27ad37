"""The report's section on mistakes: the most frequent confusions, and the texts that caused them.

Uses the hardest task that the run has: unseen samples among the unseen categories, else seen ones.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.errors import SampleError
from data.modality import MODALITIES, Modality
from data.paths import resolver
from data.readers import read
from data.readers.axes import File, path_of, turned
from data.readers.payload import Text, Waveform
from data.render import contact_sheet, render
from data.show import shorten
from kb_builder.tables.schemas import SAMPLES, read_columns
from pipeline.html.elements import Html, data_uri, el, join, section
from pipeline.report.sound import player
from trainer.evaluate.tasks import tasks
from trainer.inputs import KnowledgeBase, center_texts, seen_categories
from trainer.records import Centers, SampleSet
from trainer.score.scoring import score
from trainer.settings import Scorer

_PAIRS, _EXAMPLES = 4, 4
_MOST_SOUNDS = 8  # on a page: each takes 85 kB
_THUMB_PX = 240


@dataclass(frozen=True, slots=True)
class Mistake:
    """A misclassified sample, with the nearest center of the predicted category and of its own."""

    sample_id: str
    modality: str
    score: float  # of the predicted category
    row_id: str  # the description behind that category's nearest center
    own_score: float | None  # of its own category; None where that has no center
    own_row_id: str | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """One category predicted for another: `count` times in `of` samples."""

    true: str
    named: str
    count: int
    of: int
    by_modality: dict[str, int]
    examples: tuple[Mistake, ...]


def worst_confusions(
    base: KnowledgeBase,
    space: Mapping[str, SampleSet],
    centers: Centers,
    *,
    labels_used: bool,
    scorer: Scorer = "nearest",
) -> tuple[str, list[Confusion]]:
    """The split that was used ("" if none could be) and its most frequent confusions, in order.

    `space` and `centers` hold samples and centers in one space. The examples alternate between modalities,
    those with the highest scores first.
    """
    to_do = tasks(seen_categories(base), labels_used=labels_used)
    for task in sorted(to_do, key=lambda task: task.split != "unseen"):
        shown = {modality: task.of(samples) for modality, samples in space.items()}
        shown = {modality: samples for modality, samples in shown.items() if len(samples)}
        among = centers.of(task.candidates_C)
        if shown and len(among.row_ids):
            break
    else:
        return "", []
    found: dict[tuple[int, int], list[Mistake]] = defaultdict(list)
    totals: Counter[int] = Counter()
    for modality, samples in shown.items():
        ranked = score(samples.vectors_ND, among, scorer=scorer, top=1)
        totals.update(samples.category_N.tolist())
        wrong = np.flatnonzero(~(ranked.categories_NT == samples.labels()).any(axis=1))
        own = _own_centers(samples.take(wrong), among, scorer)
        for row, (own_score, own_row_id) in zip(wrong.tolist(), own, strict=True):
            true, named = int(samples.category_N[row]), int(ranked.categories_NT[row, 0])
            mistake = Mistake(
                samples.sample_ids[row],
                modality,
                score=float(ranked.scores_NT[row, 0]),
                row_id=among.row_ids[ranked.why_NT[row, 0]],
                own_score=own_score,
                own_row_id=own_row_id,
            )
            found[true, named].append(mistake)
    worst = sorted(
        found.items(), key=lambda item: (-len(item[1]), -len(item[1]) / totals[item[0][0]], item[0])
    )
    return task.split, [
        Confusion(
            true=base.names[true],
            named=base.names[named],
            count=len(mistakes),
            of=totals[true],
            by_modality=dict(Counter(mistake.modality for mistake in mistakes)),
            examples=_varied(mistakes),
        )
        for (true, named), mistakes in worst[:_PAIRS]
    ]


def _own_centers(
    samples: SampleSet, centers: Centers, scorer: Scorer
) -> list[tuple[float, str] | tuple[None, None]]:
    """The score of each sample's own category and its nearest center there; None without centers."""
    found: list[tuple[float, str] | tuple[None, None]] = [(None, None)] * len(samples)
    for category in np.unique(samples.category_N):
        own = centers.of(np.arange(len(centers.categories)) == category)
        if not own.row_ids:
            continue
        rows = np.flatnonzero(samples.category_N == category)
        ranked = score(samples.vectors_ND[rows], own, scorer=scorer, top=1)
        for row, value, why in zip(rows, ranked.scores_NT[:, 0], ranked.why_NT[:, 0], strict=True):
            found[row] = float(value), own.row_ids[why]
    return found


def _varied(mistakes: Iterable[Mistake]) -> tuple[Mistake, ...]:
    """A few mistakes of alternating modalities, those with the highest scores first."""
    waiting: dict[str, list[Mistake]] = defaultdict(list)
    for mistake in sorted(mistakes, key=lambda mistake: (-mistake.score, mistake.sample_id)):
        waiting[mistake.modality].append(mistake)
    turns = [
        queue[turn]
        for turn in range(_EXAMPLES)
        for name in MODALITIES
        if turn < len(queue := waiting.get(name, []))
    ]
    return tuple(turns[:_EXAMPLES])


def mistakes_section(
    base: KnowledgeBase,
    data_root: Path,
    space: Mapping[str, SampleSet],
    centers: Centers,
    *,
    labels_used: bool,
    scorer: Scorer = "nearest",
) -> Html:
    """The most frequent confusions, each with a few of its samples and the nearest texts."""
    split, confusions = worst_confusions(base, space, centers, labels_used=labels_used, scorer=scorer)
    title = "Mistakes"
    if not confusions:
        none = "None: every scored sample was recognised." if split else ""
        return section("mistakes", title, el("p", none or "No labelled sample could be scored."))
    shown = [mistake for one in confusions for mistake in one.examples]
    needed = {row_id for one in shown for row_id in (one.row_id, one.own_row_id) if row_id}
    texts = center_texts(base.folder, needed)
    file_of = _files(base.folder, data_root)
    sounds = iter(range(_MOST_SOUNDS))
    parts = [
        el(
            "p",
            f"The most frequent confusions among {split} categories, each with the text that won and the "
            "nearest of the true category.",
            class_="sub",
        )
    ]
    for one in confusions:
        ordered = sorted(one.by_modality.items(), key=lambda item: (-item[1], item[0]))
        by = ", ".join(f"{name} {count}" for name, count in ordered)
        share = el("span", f" · {one.count} of {one.of} samples ({by})", class_="sub")
        cards = [_card(one, mistake, file_of, texts, sounds) for mistake in one.examples]
        parts.append(el("h3", one.true, " recognised as ", one.named, share))
        parts.append(el("div", *cards, class_="mistakes"))
    return section("mistakes", title, *parts)


def _card(
    pair: Confusion,
    mistake: Mistake,
    file_of: Callable[[str], tuple[File, str]],
    texts: Mapping[str, str],
    sounds: Iterator[int],
) -> Html:
    words = [
        el("p", f"{mistake.modality} · {shorten(mistake.sample_id, 60)}"),
        _because("as", pair.named, mistake.score, texts.get(mistake.row_id, "")),
    ]
    if mistake.own_score is None or mistake.own_row_id is None:
        words.append(el("p", f"true category {pair.true}, which has no center, so it is never recognised"))
    else:
        words.append(_because("not", pair.true, mistake.own_score, texts.get(mistake.own_row_id, "")))
    file: File | None = None
    uri = ""
    try:
        file, uri = file_of(mistake.sample_id)
        sight = _sight(mistake, file, sounds)
    except SampleError as error:
        why = str(error) if file is None else str(error).replace(str(path_of(file)), uri)
        sight = el("p", shorten(why, 200), class_="words")
    return el("figure", sight, el("figcaption", *words))


def _because(role: str, category: str, score: float, text: str) -> Html:
    """A category's score and the text of its nearest center."""
    words = f"{role} {shorten(category, 40)} {score:.2f}"
    return el("p", el("span", words, class_="who"), " ", el("q", shorten(text, 110)))


def _sight(mistake: Mistake, file: File, sounds: Iterator[int]) -> Html:
    """The sample as a picture, for text as a quotation; with a player for the first few sounds."""
    modality: Modality = next(name for name in MODALITIES if name == mistake.modality)
    payload = read(modality, file)
    if isinstance(payload, Text):
        return el("blockquote", shorten(payload.text, 260), class_="words")
    label = f"{modality} sample {mistake.sample_id}"
    picture = el("img", src=thumbnail(contact_sheet(render(payload))), class_="thumb", alt=label)
    if isinstance(payload, Waveform) and next(sounds, None) is not None:
        return join([picture, player(payload, label=label)])
    return picture


def thumbnail(rgb_HW3: npt.NDArray[np.uint8]) -> str:
    """A uint8[H, W, 3] picture as a small JPEG `data:` address."""
    from PIL import Image

    picture = Image.fromarray(rgb_HW3)
    picture.thumbnail((_THUMB_PX, _THUMB_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _files(kb: Path, data_root: Path) -> Callable[[str], tuple[File, str]]:
    """A function from a sample's id to its file (with the up axis, if set) and its uri."""
    names, more = ["sample_id", "uri"], [SAMPLES.field("up")]
    table = read_columns(kb / "samples.parquet", names, hint="unibind ingest", optional=more)
    columns = (table[name].to_pylist() for name in ("sample_id", "uri", "up"))
    found = {sample_id: (uri, up) for sample_id, uri, up in zip(*columns, strict=True)}
    locate = resolver(data_root)

    def file_of(sample_id: str) -> tuple[File, str]:
        uri, up = found[sample_id]
        return turned(locate(uri), up), uri

    return file_of
