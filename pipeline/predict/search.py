"""Search a loaded project by words, files and its own samples, alone or added up; and recognise its samples.

Several queries are combined as ImageBind does: the sum of their unit vectors, of unit length again.

Shapes: N samples, D dimensions, T best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError
from data.modality import Modality
from pipeline.predict.answers import ALIGNED, TEXT, ZERO_SHOT, Hit, NamedCategory
from pipeline.predict.recognise import EVALUATED, Gallery, Recogniser
from trainer.evaluate.calibration import probabilities
from trainer.records import Doubles, Floats
from trainer.score.geometry import unit_rows
from trainer.score.scoring import category_scores, score
from trainer.score.topk import nearest

_BLOCK = 4096  # samples recognised at once

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
class Found:
    """What was found: hits of each modality, and categories, best first."""

    hits: Mapping[str, tuple[Hit, ...]]
    answers: tuple[NamedCategory, ...]
    models: tuple[str, ...]  # how each part of the query came into the text space
    searched: int  # samples


@dataclass(frozen=True)
class Searcher:
    """A project loaded to search; threads may share it, except while a model encodes a query (`place`)."""

    recogniser: Recogniser
    galleries: Sequence[Gallery]
    _ids: dict[str, pa.Array] = field(default_factory=dict, repr=False)

    def place(self, query: Query) -> tuple[Floats, str]:
        """A part of a query as a unit vector of the text space (float32[1, D]), and the model that made it.

        Raises InputError for an unknown sample, and what `Space.place` raises.
        """
        if query.is_sample:
            return self._sample(str(query.source))
        if query.modality is None:
            raise InputError(f"{query.source}: its ending does not show its modality; say which it has")
        return self.recogniser.space.place(query.modality, query.source)

    def search(
        self, placed: Sequence[tuple[Floats, str]], *, top: int = 8, without: Sequence[str] = ()
    ) -> Found:
        """The nearest samples of every modality, `top` of each, and the nearest categories.

        `placed` are the parts of the query (`place`); samples in `without` are left out. Probabilities are
        those of `unibind predict`, so there are none for several parts. Raises KnowledgeBaseError where no
        sample is in the text space, and InputError without any part.
        """
        if not placed:
            raise InputError("the query is empty; give words, a file or a sample")
        query_1D = placed[0][0]
        if len(placed) > 1:
            query_1D = unit_rows(np.sum([vector_1D for vector_1D, _ in placed], axis=0, dtype=np.float32))
        if not self.galleries:
            raise KnowledgeBaseError(
                f"{self.recogniser.space.kb.folder}: no sample is in the text space; run `unibind train`"
            )
        hits = {
            gallery.modality: tuple(self._hits(query_1D, gallery, top, set(without)))
            for gallery in self.galleries
        }
        models = tuple(model for _, model in placed)
        return Found(
            hits,
            self.answers(query_1D, top=top),
            models,
            sum(len(each.sample_ids) for each in self.galleries),
        )

    def answers(
        self, query_1D: Floats, *, top: int, modality: str | None = None, model: str | None = None
    ) -> tuple[NamedCategory, ...]:
        """The best categories of one vector, each with the text of its nearest center.

        With its modality and model, also their probabilities, where the evaluation calibrated them.
        """
        own = self.recogniser
        centers, scorer = own.centers, own.project.evaluate.scorer
        ranked = score(query_1D, centers, scorer=scorer, top=top)
        shares_C = self._probabilities(query_1D, modality, model)
        return tuple(
            NamedCategory(
                own.space.kb.names[category],
                value,
                own.texts.get(why, ""),
                None if shares_C is None else float(shares_C[0, category]),
                centers.categories[category],
            )
            for category, value, why in zip(
                ranked.categories_NT[0].tolist(),
                ranked.scores_NT[0].tolist(),
                ranked.why(centers, 0),
                strict=True,
            )
        )

    def recognised(self) -> pa.Table:
        """The answer for every sample in the text space, as `unibind predict` gives it: rows of `ANSWERS`.

        The categories compete among all. Samples of the train split were trained on, so theirs are better.
        """
        return pa.Table.from_batches(list(self._recognised()), schema=ANSWERS)

    def _recognised(self) -> Iterator[pa.RecordBatch]:
        own = self.recogniser
        centers, scorer = own.centers, own.project.evaluate.scorer
        categories = np.array(centers.categories, dtype=object)
        rows = np.array(centers.row_ids, dtype=object)
        for gallery in self.galleries:
            model = self._model(gallery.modality)
            for start in range(0, len(gallery.sample_ids), _BLOCK):
                block_ND = gallery.vectors_ND[start : start + _BLOCK]
                ranked = score(block_ND, centers, scorer=scorer, top=2)
                shares_NC = self._probabilities(block_ND, gallery.modality, model)
                first_N, n = ranked.categories_NT[:, 0], len(block_ND)
                two = ranked.categories_NT.shape[1] > 1
                columns = {
                    "sample_id": gallery.sample_ids[start : start + _BLOCK],
                    "modality": [gallery.modality] * n,
                    "named": categories[first_N],
                    "score": ranked.scores_NT[:, 0],
                    "why": rows[ranked.why_NT[:, 0]],
                    "second": categories[ranked.categories_NT[:, 1]] if two else [None] * n,
                    "lead": ranked.scores_NT[:, 0] - ranked.scores_NT[:, 1] if two else [None] * n,
                    "probability": [None] * n if shares_NC is None else shares_NC[np.arange(n), first_N],
                }
                yield pa.RecordBatch.from_pydict(columns, schema=ANSWERS)

    def _model(self, modality: str) -> str:
        if modality == "text":
            return TEXT
        heads = self.recogniser.space.heads
        return ALIGNED if heads is not None and modality in heads.modalities else ZERO_SHOT

    def _probabilities(self, queries_ND: Floats, modality: str | None, model: str | None) -> Doubles | None:
        """The probability of every category for each query, where the evaluation fitted a temperature."""
        own = self.recogniser
        if modality is None or model is None or len(set(own.centers.category_N.tolist())) == 1:
            return None
        temperature, _ = own.temperatures.of(modality, EVALUATED[model])
        if temperature is None:
            return None
        shares: Doubles = probabilities(
            category_scores(queries_ND, own.centers, own.project.evaluate.scorer), temperature
        )
        return shares

    def _sample(self, sample_id: str) -> tuple[Floats, str]:
        for gallery in self.galleries:
            if gallery.modality not in self._ids:
                self._ids[gallery.modality] = pa.array(gallery.sample_ids, pa.string())
            row = pc.index(self._ids[gallery.modality], sample_id).as_py()
            if row >= 0:
                return gallery.vectors_ND[row : row + 1], self._model(gallery.modality)
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
