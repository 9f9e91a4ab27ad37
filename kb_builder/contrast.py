"""The second pass: texts that tell a category from those it is most easily taken for.

How easily A is taken for B is measured on the texts of the first pass. Of each category up to 50 `ok` texts
are embedded. *Mixing* of A with B is the share of A's texts whose nearest other text belongs to B, among A's
own texts and those of the 20 categories with the nearest mean vectors. Where shares are equal, and where a
text is as near to texts of two others, the cosine of the mean vectors decides; a text that is as near to one
of its own category is not mixed. Mean vectors are compared in blocks and texts only with those of 20
categories, so that of 10,000 neither all pairs of texts nor all pairs of categories are in memory at once.

Each category is then asked about again, once for each of its `contrast_pairs` nearest ones: what is true of
it and not of the other? The other's name stands in the question only; a text that names it is rejected.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from data.reads import columns
from data.reads import names as names_in
from data.sample import Category
from kb_builder.asker import Asker, LedgerOnly
from kb_builder.asking import AskingBar, open_asking
from kb_builder.category_texts import (
    CategoryTexts,
    Rival,
    Writing,
    contrast_items,
    contrast_library,
    make_writing,
)
from kb_builder.cited import require_cited_answers
from kb_builder.describe_categories import read_categories, summarise
from kb_builder.describers import make_describer
from kb_builder.encoders import load_encoder
from kb_builder.fill import fill
from kb_builder.gates import CategoryGate, category_names
from kb_builder.ledger import Entry, microseconds_now, open_ledger
from kb_builder.parts import remove_beyond, write_part
from kb_builder.prompts import spoken_name
from kb_builder.request import Request
from kb_builder.settings import DescribeCategories
from kb_builder.tokens import MINILM

# Shapes: C categories, N texts, D dimensions, M candidates.

log = logging.getLogger(__name__)

TEXTS_PER_CATEGORY = 50
CANDIDATES = 20
_BLOCK = 512  # categories whose mean vectors are compared with all others at once
_EMBEDDED_TOGETHER = 64
_REPORTED = 10
_SAME = 1e-6  # cosines that differ by no more are equal: the last digits depend on the machine's arithmetic

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Confusable:
    """`rival_id` is a category that `category_id` is easily taken for."""

    category_id: str
    rival_id: str
    mixing: float  # share of the category's texts whose nearest other text is the rival's
    cosine: float  # of the mean vectors


def describe_contrasts(
    kb: Path,
    settings: DescribeCategories,
    *,
    run_id: str,
    asker: Asker | None = None,
    encoder: str = MINILM,
) -> dict[str, Any]:
    """Write `descriptions/category/contrast-00000.parquet`, or nothing where there is nothing to contrast.

    Returns the counts of a shard of `describe_category_shards`, with `pairs` (how many) and `closest` (the
    most confusable: category, rival, mixing, cosine). Where no contrast pass is made, `skipped` says why.
    """
    return asyncio.run(_describe(kb, settings, run_id, asker, encoder))


def replay_contrasts(kb: Path, settings: DescribeCategories, *, encoder: str = MINILM) -> dict[str, Any]:
    """The same from the ledger alone: parse and judge again, ask nobody."""

    async def replay() -> dict[str, Any]:
        async with open_ledger(kb) as ledger:
            return await _describe(kb, settings, "", LedgerOnly(ledger), encoder)

    return asyncio.run(replay())


class _Contrasts:
    """A `fill.Subject`: one category set apart from its rivals, one after the other, by the same gate."""

    def __init__(self, texts: Sequence[CategoryTexts]) -> None:
        self.texts = texts
        self._open = list(texts)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for texts in self.texts for row in texts.rows]

    def plan(self) -> list[Request]:
        while self._open:
            if requests := self._open[0].plan():
                return requests
            done = self._open.pop(0)
            if done.abandoned:  # what comes next depends on answers that are not there
                self._open = []
        return []

    def absorb(self, entries: list[Entry | None]) -> None:
        self._open[0].absorb(entries)


async def _describe(
    kb: Path, settings: DescribeCategories, run_id: str, asker: Asker | None, encoder: str
) -> dict[str, Any]:
    require_cited_answers(kb, "category", "contrast")
    library = contrast_library(settings, kb)
    if library is None:
        return _skip(
            kb, f"describer {settings.describer!r} is too small a model to tell what sets things apart"
        )
    if settings.contrast_pairs == 0:
        return _skip(kb, "contrast_pairs = 0")
    categories = read_categories(kb)
    found = find_confusable(kb, pairs=settings.contrast_pairs)
    if not found:
        return _skip(kb, "fewer than two categories have texts")
    describer = make_describer(settings)
    writing = make_writing(
        settings,
        describer,
        library,
        encoder=encoder,
        started=microseconds_now(),
        items=contrast_items(settings),
    )
    done: dict[str, _Contrasts] = {}

    def finish(contrasts: _Contrasts) -> None:
        done[contrasts.texts[0].category.category_id] = contrasts

    async with AsyncExitStack() as stack:
        total = settings.contrast_texts * len(found)
        bar = stack.enter_context(AskingBar("contrasts", unit=" texts", total=total))
        if asker is None:
            asker = await stack.enter_async_context(
                open_asking(kb, describer, settings, run_id=run_id, bar=bar)
            )
        texts = contrast_texts(ok_texts(kb), categories, found, writing, on_ok=bar.add)
        await fill(map(_Contrasts, texts), asker, on_done=finish)
    ordered = [done[category_id] for category_id in sorted(done)]
    write_part(kb, "category", "contrast-00000", [row for each in ordered for row in each.rows])
    remove_beyond(kb, "category", "contrast", 1)
    closest = sorted(found, key=lambda pair: (-pair.mixing, -pair.cosine, pair.category_id))[:_REPORTED]
    summary = summarise([texts for each in ordered for texts in each.texts])
    return summary | {
        "categories": len(ordered),
        "saturated": {
            each.texts[0].category.category_id: sum(texts.ok for texts in each.texts)
            for each in ordered
            if any(texts.short for texts in each.texts)
        },
        "pairs": len(found),
        "closest": [[pair.category_id, pair.rival_id, pair.mixing, pair.cosine] for pair in closest],
    }


def _skip(kb: Path, reason: str) -> dict[str, Any]:
    remove_beyond(kb, "category", "contrast", 0)
    log.info("no contrast pass: %s", reason)
    return {"pairs": 0, "skipped": reason}


def contrast_texts(
    earlier: Iterable[tuple[str, Mapping[str, str]]],
    categories: Sequence[Category],
    found: Sequence[Confusable],
    writing: Writing,
    *,
    on_ok: Callable[[int], None] = lambda count: None,
) -> Iterator[list[CategoryTexts]]:
    """Of each category, its texts against each of its rivals. They share a gate: one must follow the other.

    `earlier` are the category's texts of the first pass, as `ok_texts` gives them.
    """
    by_id = {category.category_id: category for category in categories}
    names = category_names(categories)
    rivals: dict[str, list[str]] = defaultdict(list)
    for pair in found:
        rivals[pair.category_id].append(pair.rival_id)
    for category_id, texts in earlier:
        if category_id not in rivals:
            continue
        gate = CategoryGate(names[category_id], writing.rules)
        gate.remember(list(texts), list(texts.values()))
        yield [
            CategoryTexts(
                by_id[category_id],
                gate,
                writing,
                wanted=writing.settings.contrast_texts,
                rival=Rival(rival_id, spoken_name(by_id[rival_id]), names[rival_id].own),
                on_ok=on_ok,
            )
            for rival_id in rivals[category_id]
        ]


def find_confusable(kb: Path, *, pairs: int) -> list[Confusable]:
    """For each category with texts, the `pairs` others it is most easily taken for, nearest first."""
    texts = {category_id: list(found.values())[:TEXTS_PER_CATEGORY] for category_id, found in ok_texts(kb)}
    if len(texts) < 2:
        return []
    ids = sorted(texts)
    starts_C = np.cumsum([0, *(len(texts[each]) for each in ids)])
    with tempfile.TemporaryDirectory(prefix="unibind-") as folder:
        vectors_ND = _embed([text for each in ids for text in texts[each]], Path(folder) / "vectors")
        return rank_rivals(ids, vectors_ND, starts_C, pairs=pairs)


def rank_rivals(
    ids: Sequence[str], vectors_ND: Floats, starts_C: npt.NDArray[np.intp], *, pairs: int
) -> list[Confusable]:
    """The `pairs` nearest rivals of each category.

    `vectors_ND[starts_C[i]:starts_C[i + 1]]` are the unit vectors of the texts of category `ids[i]`.
    """
    means_CD = np.stack([vectors_ND[start:end].mean(axis=0) for start, end in pairwise(starts_C)])
    means_CD /= np.maximum(np.linalg.norm(means_CD, axis=1, keepdims=True), 1e-12)
    found: list[Confusable] = []
    for start in range(0, len(ids), _BLOCK):
        cosines_BC = means_CD[start : start + _BLOCK] @ means_CD.T
        for row, cosines_C in enumerate(cosines_BC):
            mine = start + row
            cosines_C[mine] = -np.inf
            count = min(CANDIDATES, len(ids) - 1)
            nearest_M = np.argpartition(-cosines_C, count - 1)[:count]
            # In an order of its own: argpartition's depends on the processor.
            nearest_M = nearest_M[np.lexsort((nearest_M, -cosines_C[nearest_M].round(4)))]
            mixing_M = _mixing(mine, nearest_M, vectors_ND, starts_C)
            # Rounded: the last digits depend on the machine's arithmetic.
            rivals = [
                Confusable(ids[mine], ids[other], round(float(mixing), 4), round(float(cosines_C[other]), 4))
                for other, mixing in zip(nearest_M.tolist(), mixing_M, strict=True)
            ]
            rivals.sort(key=lambda pair: (-pair.mixing, -pair.cosine, pair.rival_id))
            found += rivals[:pairs]
    return found


def _mixing(
    mine: int, others_M: npt.NDArray[np.intp], vectors_ND: Floats, starts_C: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """For each other category, the share of this one's texts whose nearest other text is in it.

    A text that is as near to several is the first one's; one that is as near to one of its own is nobody's.
    """
    own_ND = np.asarray(vectors_ND[starts_C[mine] : starts_C[mine + 1]])
    own_NN = own_ND @ own_ND.T
    np.fill_diagonal(own_NN, -np.inf)
    best_NM = np.stack(
        [(own_ND @ vectors_ND[starts_C[other] : starts_C[other + 1]].T).max(axis=1) for other in others_M],
        axis=1,
    )
    most_N = best_NM.max(axis=1)
    nearest_N = (best_NM >= most_N[:, None] - _SAME).argmax(axis=1)
    foreign_N = most_N > own_NN.max(axis=1) + _SAME
    return np.bincount(nearest_N[foreign_N], minlength=len(others_M)) / len(own_ND)


def _embed(texts: Sequence[str], path: Path) -> Floats:
    """The texts' vectors, float32[N, D], in a file: of 10,000 categories they are 0.8 GB."""
    from kb_builder.encoders.workers import map_batches  # torch: whoever only plans does not wait for it

    encoder = load_encoder(MINILM)
    vectors_ND: Floats = np.memmap(path, np.float32, "w+", shape=(len(texts), encoder.dim))
    order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), place))
    places = [order[start : start + _EMBEDDED_TOGETHER] for start in range(0, len(order), _EMBEDDED_TOGETHER)]
    batches = ([texts[place] for place in batch] for batch in places)
    with tqdm(total=len(texts), desc="compare categories", unit=" texts", disable=None) as bar:
        for batch, vectors in zip(places, map_batches(encoder.encode, batches), strict=True):
            vectors_ND[batch] = vectors
            bar.update(len(batch))
    return vectors_ND


def ok_texts(kb: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Category by category, in the order of the parts: row_id -> `ok` text of the first pass."""
    for path in names_in(kb / "descriptions" / "category", "part-*.parquet"):
        table = columns(path, ["category_id", "row_id", "text", "status"])
        texts: dict[str, dict[str, str]] = defaultdict(dict)
        for category_id, row_id, text, status in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        ):
            if status == "ok":
                texts[category_id][row_id] = text
        yield from texts.items()
