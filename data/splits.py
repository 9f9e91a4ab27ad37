"""Train, val and test splits: how a folder name is read as a split, and how missing splits are drawn."""

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

# Common synonyms of the split names.
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
# Suffixes of a split word: `train2017`, `test_set`, `val-images`, `TrainData`.
_BEHIND = re.compile(r"(set|split|data|images|imgs|samples|files|\d{1,4})$")


@dataclass(frozen=True)
class SplitUnit:
    """The files of one object, which go to the same split together."""

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


def draw_splits(units: Iterable[SplitUnit], *, seed: int = 0) -> dict[str, Split]:
    """A split for each unit, by its key: 60/20/20 of the files of each category, all files of a unit
    together.

    Stratified by category and set of modalities, so that every modality gets its share. Units are taken by
    size, largest first, ties by the SHA-256 of seed and key, and go to the split that is furthest below its
    share: the result does not depend on the order of `units`. Of two units one is test; a single one is test.
    """
    strata: dict[tuple[str, tuple[str, ...]], list[SplitUnit]] = defaultdict(list)
    for unit in units:
        strata[unit.category_id or "", tuple(sorted(unit.modalities))].append(unit)
    return {key: split for stratum in strata.values() for key, split in _draw(stratum, seed).items()}


def _draw(stratum: Collection[SplitUnit], seed: int) -> dict[str, Split]:
    total = sum(unit.files for unit in stratum)
    lacking: dict[Split, float] = {split: share * total for split, share in SHARES.items()}
    drawn: dict[str, Split] = {}
    if len(stratum) == 1:
        return {unit.key: "test" for unit in stratum}
    for unit in sorted(stratum, key=lambda unit: (-unit.files, _rank(unit.key, seed))):
        # Equal needs go to test first, then to val; sums of fifths are not exact.
        split = max(_ORDER, key=lambda name: round(lacking[name], 6))
        drawn[unit.key] = split
        lacking[split] -= unit.files
    return drawn


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()
