"""Search a loaded project by words, files and its own samples, alone or added up; and recognise its samples.

Several queries are combined as ImageBind does: the sum of their unit vectors, of unit length again.

Shapes: N samples, D dimensions, T best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError
from data.modality import MODALITIES, Modality
from pipeline.predict.answers import ALIGNED, TEXT, ZERO_SHOT, Hit, NamedCategory, Prediction
from pipeline.predict.recognise import Gallery, Judged, Recogniser, judge, predicted
from trainer.inputs import load_samples
from trainer.records import Bools, Centers, Floats, SampleSet
from trainer.score.geometry import unit_rows
from trainer.score.scoring import nearest_centers, score
from trainer.score.topk import nearest

_CELLS = 2**22  # scores of samples recognised at once: 32 MiB

ANSWERS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("named", pa.string(), nullable=False),  # the predicted category, among all
        pa.field("score", pa.float64(), nullable=False),
        pa.field("why", pa.string(), nullable=False),  # row_id of the nearest center of that category
        pa.field("second", pa.string()),  # the next category
        pa.field("lead", pa.float64()),  # over its score
        pa.field("probability", pa.float64()),  # null where nothing was calibrated
    ]
)


@dataclass(frozen=True)
class Query:
    """One part of a query: words (modality text), a file, or the id of a sample of the project."""

    modality: Modality | None
    source: Path | str
    is_sample: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a query that was placed in the shared space."""

    vector_1D: Floats  # a unit vector of the space of the galleries: float32[1, D]
    model: str  # that made it
    name: str = ""
    modality: Modality | None = None  # None: words
    placed: Mapping[str, Floats] = field(default_factory=dict)  # by each model, for `predicted`


@dataclass(frozen=True)
class Found:
    """What was found: hits of each modality, and categories, best first."""

    hits: Mapping[str, tuple[Hit, ...]]
    answers: tuple[NamedCategory, ...]
    prediction: Prediction | None  # of a file or sample alone, as `unibind predict` answers
    models: tuple[str, ...]  # how each part of the query came into the shared space
    searched: int  # samples


class _Samples(NamedTuple):
    """Samples of one modality, and their vectors by each model that places them."""

    modality: Modality
    sample_ids: Sequence[str]
    placed: Mapping[str, Floats]


@dataclass
class Searcher:
    """A project loaded to search; threads may share it, except while a model encodes a query (`place`)."""

    recogniser: Recogniser
    galleries: Sequence[Gallery]

    def place(self, query: Query) -> Part:
        """A part of a query in the shared space, where `unibind retrieve` has it.

        Raises InputError for an unknown sample, and what `Space.place` raises.
        """
        space = self.recogniser.space
        if query.is_sample:
            return self._sample(str(query.source))
        if query.modality is None:
            raise InputError(f"{query.source}: its ending does not show its modality; say which it has")
        if isinstance(query.source, str):
            if query.modality != "text":
                raise InputError(f"{query.source}: a query of words has the modality text")
            return Part(space.place_words(query.source), TEXT, query.source)
        placed = space.place_by_model(query.modality, query.source, use=self.recogniser.evaluated.use)
        vector_1D, model = space.place_query(query.modality, query.source, placed)
        return Part(vector_1D, model, str(query.source), query.modality, placed)

    def search(self, parts: Sequence[Part], *, top: int = 8, without: Sequence[str] = ()) -> Found:
        """The nearest samples of every modality, `top` of each, and the nearest categories.

        `parts` are those of the query (`place`); samples in `without` are left out. A file or a sample alone
        is answered as by `unibind predict`; words and sums are compared with the centers alone, for constant
        and temperature hold for samples. Raises KnowledgeBaseError where no sample is in the text
        space, and InputError without any part.
        """
        if not parts:
            raise InputError("the query is empty; give words, a file or a sample")
        query_1D = parts[0].vector_1D
        if len(parts) > 1:
            query_1D = unit_rows(np.sum([part.vector_1D for part in parts], axis=0, dtype=np.float32))
        if not self.galleries:
            raise KnowledgeBaseError(
                f"{self.recogniser.space.kb.folder}: no sample is in the text space; run `unibind train`"
            )
        prediction = self.predict(parts[0], top=top) if len(parts) == 1 else None
        return Found(
            {
                gallery.modality: tuple(self._hits(query_1D, gallery, top, set(without)))
                for gallery in self.galleries
            },
            self._nearest_categories(query_1D, top) if prediction is None else prediction.answers,
            prediction,
            tuple(part.model for part in parts),
            sum(len(each.sample_ids) for each in self.galleries),
        )

    def predict(self, part: Part, *, top: int = 5) -> Prediction | None:
        """What `unibind predict` answers for a file or a sample; None for words."""
        if part.modality is None:
            return None
        return predicted(self.recogniser, part.name, part.modality, part.placed, top)

    def recognised(self, *, only: Sequence[str] | None = None, centers: Centers | None = None) -> pa.Table:
        """The answer for every sample, as `unibind predict` gives it: rows of `ANSWERS`.

        Of all samples, or `only` of some ids; with the project's centers, or others (`with_centers`). The
        categories compete among all. Samples of the train split were trained on, so theirs are better.
        """
        recogniser = self.recogniser if centers is None else self.recogniser.with_centers(centers)
        wanted = None if only is None else np.array(sorted(only), dtype=np.str_)
        return pa.Table.from_batches(list(self._recognised(recogniser, wanted)), schema=ANSWERS)

    def _recognised(self, recogniser: Recogniser, only: np.ndarray | None) -> Iterator[pa.RecordBatch]:
        if not recogniser.candidates.any():
            return
        step = max(1, _CELLS // len(recogniser.candidates))
        for samples in self._samples:
            rows_N = np.arange(len(samples.sample_ids))
            if only is not None:
                rows_N = rows_N[np.isin(np.asarray(samples.sample_ids, dtype=np.str_), only)]
            for start in range(0, len(rows_N), step):
                rows_B = rows_N[start : start + step]
                placed = {model: x_ND[rows_B] for model, x_ND in samples.placed.items()}
                ids = [samples.sample_ids[row] for row in rows_B.tolist()]
                judged = judge(recogniser, samples.modality, placed)
                yield _batch(recogniser, samples.modality, ids, placed, judged)

    @cached_property
    def _samples(self) -> list[_Samples]:
        """The project's samples, with the vectors that `Space.place_by_model` would make of their files."""
        space = self.recogniser.space
        mapped = {gallery.modality: gallery for gallery in self.galleries}
        untrained = load_samples(space.kb, "zero_shot")[0] if space.kb.encoders.get("zero_shot") else {}
        found: list[_Samples] = []
        for modality in MODALITIES:
            one, other = untrained.get(modality), mapped.get(modality)
            has_head = space.heads is not None and modality in space.heads.weights
            if modality == "text" and not has_head:
                if other is not None:
                    found.append(_Samples(modality, other.sample_ids, {TEXT: other.vectors_ND}))
            elif not has_head:
                if one is not None:
                    found.append(_Samples(modality, one.sample_ids, {"zero_shot": one.vectors_ND}))
            elif other is not None:
                found += _with_and_without(modality, other, one)
        return found

    def _nearest_categories(self, query_1D: Floats, top: int) -> tuple[NamedCategory, ...]:
        own = self.recogniser
        centers = own.centers[TEXT]
        ranked = score(query_1D, centers, scorer=own.project.evaluate.scorer, top=top)
        return tuple(
            NamedCategory(
                own.space.kb.names[category],
                value,
                own.texts.get(why, ""),
                category_id=centers.categories[category],
            )
            for category, value, why in zip(
                ranked.categories_NT[0].tolist(),
                ranked.scores_NT[0].tolist(),
                ranked.why(centers, 0),
                strict=True,
            )
        )

    @cached_property
    def _ids(self) -> list[pa.Array]:
        return [pa.array(each.sample_ids, pa.string()) for each in self._samples]

    def _sample(self, sample_id: str) -> Part:
        heads = self.recogniser.space.heads
        for samples, ids in zip(self._samples, self._ids, strict=True):
            row = pc.index(ids, sample_id).as_py()
            if row >= 0:
                placed = {model: x_ND[row : row + 1] for model, x_ND in samples.placed.items()}
                if "aligned" in placed:
                    vector_1D, model = placed["aligned"], ALIGNED
                elif TEXT in placed:
                    vector_1D, model = placed[TEXT], TEXT
                else:
                    vector_1D, model = placed["zero_shot"], ZERO_SHOT
                    if heads is not None:
                        vector_1D = heads.place_text(vector_1D)
                return Part(vector_1D, model, sample_id, samples.modality, placed)
        raise InputError(f"no sample {sample_id!r} is in the text space of this project")

    def _hits(self, query_1D: Floats, gallery: Gallery, top: int, without: set[str]) -> Iterator[Hit]:
        kb = self.recogniser.space.kb
        indices_1T, scores_1T = nearest(query_1D, gallery.vectors_ND, top + len(without))
        found = [
            (index, cosine)
            for index, cosine in zip(indices_1T[0].tolist(), scores_1T[0].tolist(), strict=True)
            if gallery.sample_ids[index] not in without
        ]
        for index, cosine in found[:top]:
            number = int(gallery.category_N[index])
            known = (kb.names[number], kb.categories[number]) if number >= 0 else (None, None)
            yield Hit(gallery.sample_ids[index], gallery.modality, known[0], cosine, known[1])


def _with_and_without(modality: Modality, mapped: Gallery, untrained: SampleSet | None) -> Iterator[_Samples]:
    """The samples that the zero-shot encoder has too, and those that it has not."""
    ids = () if untrained is None else untrained.sample_ids
    place_N = pc.index_in(pa.array(mapped.sample_ids, pa.string()), value_set=pa.array(ids, pa.string()))
    place_N = place_N.fill_null(-1).to_numpy(zero_copy_only=False)
    both_N: Bools = place_N >= 0
    for some_N, has_both in ((both_N, True), (~both_N, False)):
        if not some_N.any():
            continue
        rows = np.flatnonzero(some_N)
        placed = {}
        if has_both and untrained is not None:
            placed["zero_shot"] = untrained.vectors_ND[place_N[rows]]
        placed["aligned"] = mapped.vectors_ND[rows]
        yield _Samples(modality, [mapped.sample_ids[row] for row in rows.tolist()], placed)


def _batch(
    recogniser: Recogniser,
    modality: str,
    sample_ids: Sequence[str],
    placed: Mapping[str, Floats],
    judged: Judged,
) -> pa.RecordBatch:
    """The two best categories of each sample, as rows of `ANSWERS`."""
    centers = recogniser.centers[judged.shown_by]
    categories = np.array(centers.categories, dtype=np.object_)
    every_N, left_NC = np.arange(len(sample_ids)), judged.score_NC.copy()
    first_N = left_NC.argmax(axis=1)
    best_N = left_NC[every_N, first_N]
    left_NC[every_N, first_N] = -np.inf
    second_N = left_NC.argmax(axis=1)
    two = int(recogniser.candidates.sum()) > 1
    why_N = nearest_centers(placed[judged.shown_by], centers, first_N[:, None])[:, 0]
    none = [None] * len(sample_ids)
    columns = {
        "sample_id": sample_ids,
        "modality": [modality] * len(sample_ids),
        "named": categories[first_N],
        "score": best_N,
        "why": [centers.row_ids[row] for row in why_N.tolist()],
        "second": categories[second_N] if two else none,
        "lead": best_N - left_NC[every_N, second_N] if two else none,
        "probability": none if judged.shares_NC is None else judged.shares_NC[every_N, first_N],
    }
    return pa.RecordBatch.from_pydict(columns, schema=ANSWERS)
