"""Train, val and test: the words that people use for them, and how they are drawn where nothing says so."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from data.modality import Modality
from data.sample import Split

SHARES: Mapping[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}

_ORDER: tuple[Split, ...] = ("test", "val", "train")

# What people call a split, beside its own name.
SPLIT_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("training", "fit"), "train"),
    **dict.fromkeys(("valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "holdout", "held_out"), "test"),
}
_FOLDER_WORDS: Mapping[str, Split] = {
    **{name: name for name in SHARES},
    **SPLIT_WORDS,
    "heldout": "test",
    "development": "val",
}
# `train2017`, `test_set`, `val-images`, `TrainData`: what may stand behind the word.
_BEHIND = re.compile(r"(set|split|data|images|imgs|samples|files|\d{1,4})$")


@dataclass(frozen=True)
class Thing:
    """One object with all of its files: they go to one split together."""

    key: str
    category_id: str | None
    modalities: frozenset[Modality]
    files: int


def split_of_folder(name: str) -> Split | None:
    """The split that a folder's name says (`Train`, `validation`, `test_set`, `val2017`), or None."""
    word = re.sub(r"[\W_]+", "", name.casefold())
    if word in _FOLDER_WORDS:
        return _FOLDER_WORDS[word]
    return _FOLDER_WORDS.get(_BEHIND.sub("", word))


def draw_splits(things: Iterable[Thing], *, seed: int = 0) -> dict[str, Split]:
    """A split for each thing, by its key: 60/20/20 of the files of each category, whole things together.

    It is drawn among the things of one category that have files of the same modalities, so that every
    modality has its share. Large things come first, equal ones by the SHA-256 of seed and key, each into the
    split that lacks most: the same things are always split alike, in whatever order they come. Of two things
    one is test; a single one is test.
    """
    strata: dict[tuple[str, tuple[str, ...]], list[Thing]] = defaultdict(list)
    for thing in things:
        strata[thing.category_id or "", tuple(sorted(thing.modalities))].append(thing)
    return {key: split for stratum in strata.values() for key, split in _draw(stratum, seed).items()}


def _draw(stratum: Collection[Thing], seed: int) -> dict[str, Split]:
    total = sum(thing.files for thing in stratum)
    lacking: dict[Split, float] = {split: share * total for split, share in SHARES.items()}
    drawn: dict[str, Split] = {}
    if len(stratum) == 1:
        return {thing.key: "test" for thing in stratum}
    for thing in sorted(stratum, key=lambda thing: (-thing.files, _rank(thing.key, seed))):
        # Equal needs go to test first, then to val; sums of fifths are not exact.
        split = max(_ORDER, key=lambda name: round(lacking[name], 6))
        drawn[thing.key] = split
        lacking[split] -= thing.files
    return drawn


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()
