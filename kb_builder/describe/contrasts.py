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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from data.sample import Category
from kb_builder.ask.asker import Asker, LedgerOnly
from kb_builder.ask.ledger import Entry, microseconds_now, open_ledger
from kb_builder.ask.request import Request
from kb_builder.ask.session import AskingBar, open_asking
from kb_builder.describe.categories import read_categories, summarise
from kb_builder.describe.category import CategorySubject, Rival, Writing, make_writing
from kb_builder.describe.confusable import Confusable, find_confusable, ok_texts
from kb_builder.describe.fill import fill
from kb_builder.describe.prompts import contrast_items, contrast_library, spoken_name
from kb_builder.describe.shards import require_cited_answers
from kb_builder.describers.choose import make_describer
from kb_builder.encoders.tokens import MINILM
from kb_builder.gates.gate import CategoryGate
from kb_builder.gates.names import category_names
from kb_builder.settings import DescribeCategories
from kb_builder.tables.parts import remove_beyond, write_part

# Shapes: C categories, N texts, D dimensions, M candidates.

log = logging.getLogger(__name__)

_REPORTED = 10


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

    def __init__(self, texts: Sequence[CategorySubject]) -> None:
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
) -> Iterator[list[CategorySubject]]:
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
            CategorySubject(
                by_id[category_id],
                gate,
                writing,
                wanted=writing.settings.contrast_texts,
                rival=Rival(rival_id, spoken_name(by_id[rival_id]), names[rival_id].own),
                on_ok=on_ok,
            )
            for rival_id in rivals[category_id]
        ]
