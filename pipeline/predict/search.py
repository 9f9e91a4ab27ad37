"""Search a loaded project by words, files and its own samples, alone or added up; and recognise its samples.

Several queries are combined as ImageBind does: the sum of their unit vectors, of unit length again.
Categories are judged by the same functions as in `unibind predict`, hits found as in `unibind retrieve`.

Shapes: N samples, D dimensions, C categories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError
from data.modality import Modality
from pipeline.predict.answers import TEXT, Hit, NamedCategory
from pipeline.predict.recognise import Judged, Recogniser, nearest_hits, title
from pipeline.predict.space import Gallery, Space
from trainer.evaluate.trust.answers import Placed, place_samples
from trainer.inputs import load_samples
from trainer.records import Bools, Centers, Floats, Ints, SampleSet
from trainer.score.geometry import unit_rows
from trainer.score.scoring import nearest_centers

_BLOCK, _CELLS = 4096, 2**22  # samples, and scores, at once

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
class PlacedPart:
    """A part of a query in the shared space."""

    vector_1D: Floats  # in the space of the galleries
    model: str  # what answers for it
    modality: str | None = None  # None: words, which no constant and no temperature was fitted for
    by_model: Mapping[str, Floats] = field(default_factory=dict)  # of a file or sample: by each model


@dataclass(frozen=True)
class Found:
    """What was found: hits of each modality, and categories, best first."""

    hits: Mapping[str, tuple[Hit, ...]]
    answers: tuple[NamedCategory, ...]
    models: tuple[str, ...]  # what answers for each part of the query
    searched: int  # samples


def stored_samples(space: Space, mapped: Mapping[str, SampleSet]) -> dict[str, Placed]:
    """The stored samples by every model that places them, by modality; `mapped` is `Space.samples()`.

    Where both models have a modality, those samples that both have.
    """
    if space.heads is None:
        return {name: Placed(each, {"zero_shot": each.vectors_ND}) for name, each in mapped.items()}
    untrained = load_samples(space.kb, "zero_shot")[0] if space.kb.encoders.get("zero_shot") else {}
    return place_samples({"zero_shot": untrained, "aligned": mapped}, space.heads)


@dataclass(frozen=True)
class Searcher:
    """A project loaded to search; threads may share it, except while a model encodes a query (`place`)."""

    recogniser: Recogniser
    galleries: Sequence[Gallery]
    stored: Mapping[str, Placed]  # of `stored_samples`
    _ids: dict[str, pa.Array] = field(default_factory=dict, repr=False)

    def with_centers(self, centers: Centers) -> Searcher:
        """The same with other centers, as they are stored."""
        return replace(self, recogniser=self.recogniser.with_centers(centers))

    def place(self, query: Query) -> PlacedPart:
        """A part of a query in the shared space.

        Raises InputError for an unknown sample, and what `Space.place_by_model` raises.
        """
        if query.is_sample:
            return self._sample(str(query.source))
        if query.modality is None:
            raise InputError(f"{query.source}: its ending does not show its modality; say which it has")
        own = self.recogniser
        if isinstance(query.source, str):
            return PlacedPart(own.space.place_words(query.source), TEXT)
        placed = own.space.place_by_model(query.modality, query.source, use=own.evaluated.use)
        vector_1D = own.space.place_among_samples(query.modality, query.source, placed)
        return PlacedPart(vector_1D, title(own.used(query.modality, placed)), query.modality, placed)

    def search(self, parts: Sequence[PlacedPart], *, top: int = 8, without: Sequence[str] = ()) -> Found:
        """The nearest samples of every modality, `top` of each, and the nearest categories.

        `parts` are those of the query (`place`); samples in `without` are left out. Raises KnowledgeBaseError
        where no sample is in the text space, and InputError without any part.
        """
        query_1D = _added(parts)
        if not self.galleries:
            raise KnowledgeBaseError(
                f"{self.recogniser.space.kb.folder}: no sample is in the text space; run `unibind train`"
            )
        left_out = set(without)
        hits = {
            gallery.modality: tuple(self._hits(query_1D, gallery, top, left_out))
            for gallery in self.galleries
        }
        models = tuple(part.model for part in parts)
        searched = sum(len(each.sample_ids) for each in self.galleries)
        return Found(hits, self.answers(parts, top=top), models, searched)

    def answers(self, parts: Sequence[PlacedPart], *, top: int) -> tuple[NamedCategory, ...]:
        """The best categories, each with the text of its nearest center.

        Of one file or sample they are the answers of `unibind predict`. Of words, and of several parts, they
        are the nearest to the vector: without a constant and without probabilities, which are fitted on
        samples. Raises InputError without any part.
        """
        query_1D = _added(parts)
        modality, placed = None, {TEXT: query_1D}
        if len(parts) == 1 and parts[0].modality is not None:
            modality, placed = parts[0].modality, dict(parts[0].by_model)
        judged = self.recogniser.judge(modality, placed)
        return self.recogniser.named(judged, placed, top)

    def recognised(self) -> pa.Table:
        """The answer for every stored sample, as `unibind predict` gives it: rows of `ANSWERS`.

        The categories compete among all. Samples of the train split were trained on, so theirs are better.
        """
        batches = [
            _batch(self.recogniser, samples, vectors, judged)
            for modality in self.stored
            for samples, vectors, judged in self._judged(modality)
        ]
        return pa.Table.from_batches(batches, schema=ANSWERS)

    def best(self, modality: str, rows_N: Bools | Ints) -> Ints:
        """The best category of some stored samples of a modality, as `recognised`: int64[N]."""
        found = [judged.scores_NC.argmax(axis=1) for _, _, judged in self._judged(modality, rows_N)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _judged(
        self, modality: str, rows_N: Bools | Ints | None = None
    ) -> Iterator[tuple[SampleSet, Mapping[str, Floats], Judged]]:
        """Stored samples, a block at a time, with their vectors by the models that are needed."""
        own, placed = self.recogniser, self.stored[modality]
        if rows_N is not None:
            placed = placed.take(rows_N)
        vectors = self._by_model(modality, placed.vectors)
        used = own.used(modality, vectors)
        needed = {used: vectors[used]} if used in vectors else vectors
        step = max(1, min(_BLOCK, _CELLS // max(1, len(own.seen_C))))
        for start in range(0, len(placed.samples), step):
            rows = np.arange(start, min(start + step, len(placed.samples)))
            block = {model: vectors_ND[start : start + step] for model, vectors_ND in needed.items()}
            yield placed.samples.take(rows), block, own.judge(modality, block)

    def _by_model(self, modality: str, vectors: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """Stored vectors under the keys of `Space.place_by_model`: a text without a head needs no model."""
        heads = self.recogniser.space.heads
        if modality == "text" and (heads is None or "text" not in heads.weights):
            return {TEXT: next(iter(vectors.values()))}
        return vectors

    def _sample(self, sample_id: str) -> PlacedPart:
        for modality, placed in self.stored.items():
            if modality not in self._ids:
                self._ids[modality] = pa.array(placed.samples.sample_ids, pa.string())
            row = pc.index(self._ids[modality], sample_id).as_py()
            if row >= 0:
                by_model = {
                    model: vectors_ND[row : row + 1]
                    for model, vectors_ND in self._by_model(modality, placed.vectors).items()
                }
                vector_1D = self.recogniser.space.among_samples(by_model)
                return PlacedPart(
                    vector_1D, title(self.recogniser.used(modality, by_model)), modality, by_model
                )
        raise InputError(f"no sample {sample_id!r} is in the text space of this project")

    def _hits(self, query_1D: Floats, gallery: Gallery, top: int, without: set[str]) -> Sequence[Hit]:
        found = nearest_hits(self.recogniser.space.kb, gallery, query_1D, top + len(without))
        return [hit for hit in found if hit.sample_id not in without][:top]


def _added(parts: Sequence[PlacedPart]) -> Floats:
    """The parts of a query as one unit vector in the space of the galleries: float32[1, D]."""
    if not parts:
        raise InputError("the query is empty; give words, a file or a sample")
    if len(parts) == 1:
        return parts[0].vector_1D
    return unit_rows(np.sum([part.vector_1D for part in parts], axis=0, dtype=np.float32))


def _batch(
    own: Recogniser, samples: SampleSet, vectors: Mapping[str, Floats], judged: Judged
) -> pa.RecordBatch:
    """Rows of `ANSWERS` for judged samples."""
    centers, every = own.centers[judged.shown_by], np.arange(len(samples))
    first_N = judged.scores_NC.argmax(axis=1)
    why_N = nearest_centers(vectors[judged.shown_by], centers, first_N[:, None])[:, 0]
    columns = {
        "sample_id": pa.array(samples.sample_ids, pa.string()),
        "modality": [samples.modality] * len(samples),
        "named": pa.array(centers.categories, pa.string()).take(pa.array(first_N)),
        "score": judged.scores_NC[every, first_N],
        "why": pa.array(centers.row_ids, pa.string()).take(pa.array(why_N)),
        "second": [None] * len(samples),
        "lead": [None] * len(samples),
        "probability": [None] * len(samples)
        if judged.shares_NC is None
        else judged.shares_NC[every, first_N],
    }
    if own.candidates.sum() > 1:
        rest_NC = judged.scores_NC.copy()
        rest_NC[every, first_N] = -np.inf
        second_N = rest_NC.argmax(axis=1)
        columns["second"] = pa.array(centers.categories, pa.string()).take(pa.array(second_N))
        columns["lead"] = columns["score"] - rest_NC[every, second_N]
    return pa.RecordBatch.from_pydict(columns, schema=ANSWERS)
