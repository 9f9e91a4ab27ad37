"""Texts that a person strikes out or adds: previewed by localizing in memory, then saved as recorded inputs.

Saving writes two files of the knowledge base (kb_builder/added/struck.py and by_hand.py) under the project's
lock. The stages that read them are then stale; the next run takes the change in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data.errors import InputError
from data.lock import write_lock
from data.manifest.ids import normal_spelling
from kb_builder.added.by_hand import add_by_hand, row_key
from kb_builder.added.struck import read_struck, restore, strike
from kb_builder.describe.rows import row_id
from kb_builder.encoders.workers import encode_texts
from kb_builder.parse.answers import PARSER_VERSION
from pipeline.predict.search import Searcher
from pipeline.ui.state import Opened
from trainer.localize.centers import load_centers
from trainer.localize.edited import Edits, choose_edited
from trainer.records import Centers


@dataclass
class Pending:
    """What a person has marked on a category's page and not saved: row ids, and texts to add."""

    category_id: str
    name: str
    struck: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    added: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.struck or self.restored or self.added)


class Line(NamedTuple):
    """One center before or after the edits."""

    row_id: str
    text: str
    score: float


class Shares(NamedTuple):
    """How many samples are recognised: of this category, and of all."""

    own: int
    own_of: int
    every: int
    of: int


class Preview(NamedTuple):
    """The category's centers before and after, and what recognition makes of it with the same heads."""

    before: Sequence[Line]
    after: Sequence[Line]
    shares_before: Shares
    shares_after: Shares


def preview(opened: Opened, pending: Pending, texts: dict[str, str]) -> Preview:
    """Localize in memory with the pending edits; `texts` are the category's own, by row id.

    The gates do not judge an added text here; they do in the next run. Raises InputError where nothing is
    pending, and what localization raises.
    """
    if not pending:
        raise InputError("nothing is marked yet")
    searcher = opened.searcher()
    space = searcher.recogniser.space
    known = dict(texts)
    added = {}
    if pending.added:
        ids = [hand_row_id(pending.name, text) for text in pending.added]
        known |= dict(zip(ids, pending.added, strict=True))
        with opened.busy():
            encoder = space.text_encoder
            added[pending.category_id] = (ids, encode_texts(encoder, pending.added, what="texts"))
    edits = Edits(frozenset(pending.struck), frozenset(pending.restored), added)
    before = load_centers(space.kb)
    _, after = choose_edited(space.kb, opened.file.localize, edits)
    category = space.kb.index[pending.category_id]
    return Preview(
        _lines(before, category, known, opened),
        _lines(after, category, known, opened),
        _shares(searcher, category, opened),
        _shares(searcher.with_centers(after), category, opened),
    )


def hand_row_id(class_name: str, text: str) -> str:
    """The row id that a text gets when it is added by hand."""
    key = row_key(class_name, normal_spelling(text))
    return row_id(key, choice=0, item=0, parser_version=PARSER_VERSION)


def save(opened: Opened, pending: Pending, *, reason: str) -> None:
    """Record the pending edits. Raises KnowledgeBaseError where a run is at work, InputError as they do."""
    kb = opened.file.kb
    if pending.added and opened.file.describe.categories.texts == "written":
        raise InputError(
            'this project reads no added texts: [describe.categories] texts = "written"; set it to "both"'
        )
    with write_lock(opened.file.run / "run.lock"):
        there = read_struck(kb)
        for row in sorted(pending.restored & there.keys()):
            restore(kb, row)
        for row in sorted(pending.struck - there.keys()):
            strike(kb, row, reason=reason)
        for text in pending.added:
            add_by_hand(kb, pending.name, text)


def _lines(centers: Centers, category: int, texts: dict[str, str], opened: Opened) -> list[Line]:
    rows = np.flatnonzero(centers.category_N == category)
    ids = [centers.row_ids[row] for row in rows]
    return [Line(each, texts.get(each, "its name"), float(place)) for place, each in enumerate(ids, start=1)]


def _shares(searcher: Searcher, category: int, opened: Opened) -> Shares:
    """Recognised samples that were not trained on, among all categories; texts are left out."""
    own = own_of = every = of = 0
    held_out = opened.held_out()
    for modality, placed in searcher.stored.items():
        if modality == "text":
            continue
        samples = placed.samples
        shown_N = (samples.category_N >= 0) & np.isin(np.asarray(samples.sample_ids), held_out)
        if not shown_N.any():
            continue
        labels_NL = samples.take(shown_N).labels()
        best_N1 = searcher.best(modality, shown_N)[:, None]
        right_N = ((best_N1 == labels_NL) & (labels_NL >= 0)).any(axis=1)
        is_own_N = labels_NL[:, 0] == category
        own += int(right_N[is_own_N].sum())
        own_of += int(is_own_N.sum())
        every += int(right_N.sum())
        of += len(labels_NL)
    return Shares(own, own_of, every, of)
