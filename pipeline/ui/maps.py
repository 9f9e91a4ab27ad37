"""The maps of the space: every sample, center and description as a point in the plane, for pages/space.py.

before: the frozen features; after: samples mapped by the heads into the shared space, with the centers and
the descriptions as they are placed there; zero_shot: all of them in the text space, without training.
Made on first use, and again when the run has changed.

Shapes: N points, D dimensions.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.errors import InputError, KnowledgeBaseError
from data.modality import MODALITIES
from kb_builder.store.table import open_table, read_manifest
from pipeline.ui.state import IS_RIGHT, Opened
from trainer.evaluate.maps.landmarks import plane
from trainer.evaluate.maps.space import of_commonest_dimension
from trainer.inputs import KnowledgeBase, load_samples
from trainer.records import Floats, Ints, SampleSet, evenly_spaced

WHICH = {"after": "after training", "before": "before training", "zero_shot": "without training"}
CENTER, DESCRIPTION = "center", "description"
KINDS = (*MODALITIES, CENTER, DESCRIPTION)
STATES = ("no answer", "right", "wrong")
_STATE_OF = {None: 0, True: 1, False: 2}  # of whether an answer is right: its number in STATES
_JUDGED = f"""
    SELECT sample_id, {IS_RIGHT} AS is_right
    FROM v_samples AS s JOIN answers AS a USING (sample_id) WHERE s.category_id IS NOT NULL
"""
MOST_SAMPLES, MOST_TEXTS, LANDMARKS = 100_000, 20_000, 900


class _Block(NamedTuple):
    """Points of one kind."""

    kind: str
    ids: Sequence[str]
    vectors_ND: Floats
    category_N: Ints  # -1: none


@dataclass(frozen=True)
class PointCloud:
    """The points of one map, and what each is."""

    ids: list[str]  # N sample ids, or row ids of centers and descriptions
    kind_N: npt.NDArray[np.uint8]
    body: bytes  # what static/map.js reads
    left_out: int  # samples and texts beyond the limits

    def kind(self, number: int) -> str:
        """What the point of that number is."""
        return KINDS[int(self.kind_N[number])]


def point_cloud(opened: Opened, which: str) -> PointCloud:
    """The map of a project, made on first use (about ten seconds), then kept until the run changes.

    Raises InputError for an unknown map and KnowledgeBaseError where nothing is encoded.
    """
    if which not in WHICH:
        raise InputError(f"there is no map {which!r}; there are {', '.join(WHICH)}")
    searcher = opened.searcher()
    kept = opened.maps.get(which)
    if kept is None or kept[0] is not searcher:
        kept = opened.maps[which] = searcher, _made(opened, which)
    made: PointCloud = kept[1]
    return made


def _made(opened: Opened, which: str) -> PointCloud:
    searcher = opened.searcher()
    base = searcher.recogniser.space.kb
    blocks = _samples(opened, base, which)
    total = sum(len(block.ids) for block in blocks)
    if not total:
        raise KnowledgeBaseError(f"{base.folder}: no sample is encoded for this map")
    blocks = [
        _some(block, max(1, MOST_SAMPLES * len(block.ids) // max(total, MOST_SAMPLES))) for block in blocks
    ]
    shown = sum(len(block.ids) for block in blocks)
    if which != "before":
        texts = _texts(opened, base, which)
        few = _some(texts, MOST_TEXTS)
        total, shown = total + len(texts.ids), shown + len(few.ids)
        centers = searcher.recogniser.centers["aligned" if which == "after" else "zero_shot"]
        blocks += [few, _Block(CENTER, centers.row_ids, centers.vectors_ND, centers.category_N)]
    xy_N2 = plane(np.concatenate([block.vectors_ND for block in blocks]), _landmarks(blocks))
    return _packed(opened, base, blocks, xy_N2, left_out=total - shown)


def _samples(opened: Opened, base: KnowledgeBase, which: str) -> list[_Block]:
    """The samples in the space of a map; of the frozen features, those of the commonest dimension."""
    if which == "after":
        galleries = opened.searcher().galleries
        return [_Block(g.modality, g.sample_ids, g.vectors_ND, g.category_N) for g in galleries]
    role = "samples" if which == "before" else "zero_shot"
    if base.encoders.get(role) is None:
        return []
    sets: list[SampleSet] = list(load_samples(base, role)[0].values())
    if which == "before":
        sets = [each for each in sets if each.modality != "text"] or sets
    return [
        _Block(each.modality, each.sample_ids, each.vectors_ND, each.category_N)
        for each in of_commonest_dimension(sets)
    ]


def _texts(opened: Opened, base: KnowledgeBase, which: str) -> _Block:
    """The accepted descriptions of categories that have a vector and are no centers, in a map's space."""
    folder = base.encoder("text") / "category_texts"
    if read_manifest(folder) is None:
        return _Block(DESCRIPTION, (), np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
    stored = open_table(folder)
    recogniser = opened.searcher().recogniser
    centers = set(recogniser.centers["zero_shot"].row_ids)
    ok = {
        row["row_id"]
        for row in opened.rows("SELECT row_id FROM v_descriptions WHERE kind = 'category' AND status = 'ok'")
    }
    ids: list[str] = []
    vectors: list[Floats] = [np.zeros((0, stored.dim), np.float32)]
    owners: list[int] = []
    for category in stored.groups:
        if category not in base.index:
            continue
        block = stored.read(category)
        rows = [place for place, each in enumerate(block.ids) if each in ok and each not in centers]
        ids += [block.ids[place] for place in rows]
        vectors.append(block.vectors_ND[rows])
        owners += [base.index[category]] * len(rows)
    vectors_ND = np.concatenate(vectors)
    if which == "after" and recogniser.space.heads is not None:
        vectors_ND = recogniser.space.heads.place_text(vectors_ND)
    return _Block(DESCRIPTION, ids, vectors_ND, np.array(owners, dtype=np.int64))


def _some(block: _Block, most: int) -> _Block:
    """At most so many points of a block, evenly spaced."""
    if len(block.ids) <= most:
        return block
    rows = evenly_spaced(len(block.ids), most)
    ids = [block.ids[row] for row in rows.tolist()]
    return _Block(block.kind, ids, block.vectors_ND[rows], block.category_N[rows])


def _landmarks(blocks: Sequence[_Block]) -> Ints:
    """Evenly spaced points, an equal share of each kind: their numbers."""
    found, first = [], 0
    for block in blocks:
        found.append(first + evenly_spaced(len(block.ids), LANDMARKS // len(blocks)))
        first += len(block.ids)
    return np.concatenate(found).astype(np.int64)


def _packed(
    opened: Opened,
    base: KnowledgeBase,
    blocks: Sequence[_Block],
    xy_N2: npt.NDArray[np.float64],
    *,
    left_out: int,
) -> PointCloud:
    """The bytes of a map for the browser: a header, coordinates within ±1, and four values of each point."""
    ids = [each for block in blocks for each in block.ids]
    kind_N = np.concatenate([np.full(len(b.ids), KINDS.index(b.kind), np.uint8) for b in blocks])
    category_N = np.concatenate([block.category_N for block in blocks]).astype("<i4")
    is_right = {row["sample_id"]: row["is_right"] for row in opened.rows(_JUDGED, answers=True)}
    state_N = np.array([_STATE_OF[is_right.get(one)] for one in ids], np.uint8)
    writers, writer_N = _writers(opened, ids)
    middle_2 = (xy_N2.min(axis=0) + xy_N2.max(axis=0)) / 2
    reach = float(np.abs(xy_N2 - middle_2).max()) or 1.0
    head: dict[str, Any] = {
        "n": len(ids),
        "kinds": KINDS,
        "categories": base.names,
        "states": STATES,
        "writers": writers,
    }
    text = json.dumps(head).encode()
    body = b"".join(
        [
            struct.pack("<I", len(text)),
            text,
            b"\0" * (-len(text) % 4),
            ((xy_N2 - middle_2) / reach).astype("<f4").tobytes(),
            category_N.tobytes(),
            kind_N.tobytes(),
            state_N.tobytes(),
            writer_N.tobytes(),
        ]
    )
    return PointCloud(ids, kind_N, body, left_out)


def _writers(opened: Opened, ids: Sequence[str]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Who wrote each description and center: names, and of each point the number of one."""
    rows = opened.rows("SELECT row_id, model_resolved AS model FROM v_descriptions WHERE kind = 'category'")
    model_of = {row["row_id"]: row["model"] for row in rows}
    common = [name for name, _ in Counter(model_of.values()).most_common(200)]
    names = ["sample", *common, "other"]
    number = {name: place for place, name in enumerate(names)}
    other = number["other"]
    writer_N = [number.get(model_of[each], other) if each in model_of else 0 for each in ids]
    return names, np.array(writer_N, np.uint8)
