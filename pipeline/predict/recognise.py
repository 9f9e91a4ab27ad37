"""Recognise and retrieve new files with a project: `predict_files`, `retrieve_samples`, and their parts.

`Space` (pipeline/predict/space.py) maps a file into the text space; what the evaluation found is in
pipeline/predict/evaluated.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError, SampleError, TrainingError
from data.modality import MODALITIES, Modality, guess_modality
from data.readers import use_budget, warm_up
from kb_builder.tables.schemas import read_columns
from pipeline.predict.answers import (
    ALIGNED,
    MEAN,
    TEXT,
    ZERO_SHOT,
    Favoured,
    Hit,
    NamedCategory,
    OtherAnswer,
    Prediction,
    failed,
    modality_of,
    say_on_stderr,
)
from pipeline.predict.evaluated import Evaluated, load_evaluated
from pipeline.predict.paths import each_file, unreadable
from pipeline.predict.space import Gallery, Space
from pipeline.project import ProjectFile
from trainer.evaluate.calibration import probabilities
from trainer.evaluate.trust.answers import centers_by_model, mean_scores
from trainer.inputs import KnowledgeBase, center_texts, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Bools, Centers, Doubles, Floats
from trainer.score.scoring import category_scores, nearest_centers
from trainer.score.topk import nearest
from trainer.settings import Scorer

# Their names in the evaluation. Texts are in the text space under both models.
EVALUATED = {
    ALIGNED: ("aligned",),
    ZERO_SHOT: ("zero_shot",),
    MEAN: ("mean",),
    TEXT: ("aligned", "zero_shot"),
}
_TITLES = {"aligned": ALIGNED, "zero_shot": ZERO_SHOT, "mean": MEAN}


def title(model: str) -> str:
    """A model's name as a Prediction has it, by its name in the evaluation; TEXT has no other."""
    return _TITLES.get(model, model)


def predict_files(
    project: ProjectFile,
    given: Iterable[tuple[Path, str | None]],
    *,
    top: int = 5,
    say: Callable[[str], None] = say_on_stderr,
) -> Iterator[Prediction]:
    """Recognise files among a project's categories: (path, modality or None to guess it from the name).

    A folder means the files in it (pipeline/predict/paths.py); `say` gets what is left out of it.

    Uses the aligned head of the file's modality, the zero-shot encoder or the mean of both, as chosen on val
    or by [predict] (`Evaluated.wanted`); the scorer of [evaluate]; the constant that the evaluation takes off
    trained categories, and its temperature for that modality and model. `say` also gets what is used for a
    modality, and why, before its first file. A file that cannot be read gives a Prediction with `error`; a
    project without centers raises KnowledgeBaseError.
    """
    use_budget(project.data.budget)
    warm_up()
    yield from recognise(open_recogniser(project), given, top=top, say=say)


@dataclass(frozen=True)
class Judged:
    """What the model that answers makes of N queries: the scores of every category. C categories."""

    used: str  # the model that answers: zero_shot, aligned, mean or TEXT
    shown_by: str  # the model whose nearest texts are shown
    by_model: Mapping[str, Doubles]  # the scores of each model, without the constant: float64[N, C]
    scores_NC: Doubles  # those of the model that answers, less the constant; no center: minus infinity
    constant: float  # what was taken off trained categories
    shares_NC: Doubles | None  # the probabilities, or
    uncalibrated: str | None  # why there are none

    @property
    def model(self) -> str:
        """The name of the model that answers, as a Prediction has it."""
        return title(self.used)


@dataclass(frozen=True)
class Recogniser:
    """A project loaded to recognise files: encoders, heads, centers, scorer."""

    project: ProjectFile
    space: Space
    centers: Mapping[str, Centers]  # by the model whose vectors are compared with them
    texts: Mapping[str, str]  # of the centers, by row id
    evaluated: Evaluated
    seen_C: Bools  # the categories with train samples

    @property
    def candidates(self) -> Bools:
        """The categories that can be an answer."""
        return next(iter(self.centers.values())).counts() > 0

    def with_centers(self, centers: Centers) -> Recogniser:
        """The same with other centers, as they are stored; the heads and what was evaluated stay."""
        return replace(self, centers=_comparable(centers, self.space))

    def constant(self, modality: str, models: Sequence[str]) -> float:
        """What is taken off trained categories: 0 where no untrained one competes, or none was found."""
        can_be_C = self.candidates
        if (self.seen_C & can_be_C).any() and (~self.seen_C & can_be_C).any():
            for model in models:
                if (modality, model) in self.evaluated.constants:
                    return self.evaluated.constants[modality, model]
        return 0.0

    def used(self, modality: str, models: Collection[str]) -> str:
        """The model that answers, of those that place a file: `Evaluated.wanted`, or TEXT."""
        return TEXT if TEXT in models else self.evaluated.wanted(modality, models)

    def judge(self, modality: str | None, placed: Mapping[str, Floats]) -> Judged:
        """Score every category for N queries, placed by each model (float32[N, D]) as `place_by_model` does.

        Without a modality (words, or several queries added up) no constant and no temperature fits.
        """
        scores = _scores(placed, self.centers, self.project.evaluate.scorer)
        used = TEXT if modality is None else self.used(modality, placed)
        constant, temperature = 0.0, None
        uncalibrated: str | None = "temperatures are fitted on samples, not on words or several queries"
        if modality is not None:
            models = EVALUATED[title(used)]
            constant = self.constant(modality, models)
            temperature, uncalibrated = self.evaluated.temperatures.of(modality, models)
        scores_NC = scores[used] - np.where(self.seen_C, constant, 0.0)
        shares_NC = None
        if self.candidates.sum() == 1:
            uncalibrated = "the project has only one category"
        elif temperature is not None:
            shares_NC = probabilities(scores_NC, temperature)
        shown_by = used if used in placed else "aligned"
        return Judged(used, shown_by, scores, scores_NC, constant, shares_NC, uncalibrated)

    def named(self, judged: Judged, placed: Mapping[str, Floats], top: int) -> tuple[NamedCategory, ...]:
        """The best categories of the first query, best first, each with the text of its nearest center."""
        score_C, centers = judged.scores_NC[0], self.centers[judged.shown_by]
        count = min(top, int(self.candidates.sum()))
        ranked_T = np.argsort(-score_C, kind="stable")[:count]
        why_1T = nearest_centers(placed[judged.shown_by][:1], centers, ranked_T[None, :])
        return tuple(
            NamedCategory(
                self.space.kb.names[category],
                float(score_C[category]),
                self.texts.get(centers.row_ids[row], ""),
                None if judged.shares_NC is None else float(judged.shares_NC[0, category]),
                centers.categories[category],
            )
            for category, row in zip(ranked_T.tolist(), why_1T[0].tolist(), strict=True)
        )


def open_recogniser(project: ProjectFile, space: Space | None = None) -> Recogniser:
    """Load a project to recognise files; `space` is the project's, if already loaded.

    Raises KnowledgeBaseError where the project has no knowledge base, vectors or centers.
    """
    space = space or Space(project)
    centers = load_centers(space.kb)
    return Recogniser(
        project=project,
        space=space,
        centers=_comparable(centers, space),
        texts=center_texts(space.kb.folder, centers.row_ids),
        evaluated=load_evaluated(project),
        seen_C=seen_categories(space.kb),
    )


def _comparable(centers: Centers, space: Space) -> dict[str, Centers]:
    by_model = centers_by_model(centers, space.heads)
    return {**by_model, TEXT: by_model["aligned"]}


def recognise(
    recogniser: Recogniser,
    given: Iterable[tuple[Path, str | None]],
    *,
    top: int,
    say: Callable[[str], None],
) -> Iterator[Prediction]:
    """Recognise files with a loaded project: see `predict_files`."""
    told: set[str] = set()
    use = recogniser.evaluated.use
    for path, modality, reason in each_file(given, say):
        try:
            known = modality_of(path, modality, reason)
            placed = recogniser.space.place_by_model(known, path, use=use)
        except (SampleError, TrainingError) as error:
            yield failed(path, modality, error)
            continue
        if known not in told and (note := recogniser.evaluated.note(known, placed)):
            say(note)
        told.add(known)
        yield _prediction(recogniser, path, known, placed, top)


def _prediction(
    recogniser: Recogniser, path: Path, modality: Modality, placed: Mapping[str, Floats], top: int
) -> Prediction:
    """The answers for one file, placed in the text space by one model (`TEXT`) or by several."""
    names, categories = recogniser.space.kb.names, recogniser.centers["aligned"].categories
    judged = recogniser.judge(modality, placed)
    without = int(judged.by_model[judged.used][0].argmax())
    favoured = None
    if int(judged.scores_NC[0].argmax()) != without:
        favoured = Favoured(names[without], categories[without], judged.constant)
    return Prediction(
        str(path),
        modality,
        judged.model,
        recogniser.named(judged, placed, top),
        uncalibrated=judged.uncalibrated,
        others=tuple(
            OtherAnswer(_TITLES[name], names[best], float(score_1C[0, best]), categories[best])
            for name, score_1C in judged.by_model.items()
            if name != judged.used
            for best in [int(score_1C[0].argmax())]
        ),
        favoured=favoured,
    )


def _scores(
    placed: Mapping[str, Floats], centers: Mapping[str, Centers], scorer: Scorer
) -> dict[str, Doubles]:
    """The score of every category, by each model that places queries, and by the mean: float64[N, C]."""
    scores = {
        model: category_scores(queries_ND, centers[model], scorer).astype(np.float64)
        for model, queries_ND in placed.items()
    }
    if len(scores) == 2:
        scores["mean"] = mean_scores(scores["zero_shot"], scores["aligned"]).astype(np.float64)
    return scores


def retrieve_samples(
    project: ProjectFile,
    query: str,
    *,
    modality: str | None = None,
    into: str | None = None,
    top: int = 10,
    say: Callable[[str], None] = say_on_stderr,
    space: Space | None = None,
    galleries: Iterable[Gallery] | None = None,
) -> list[Hit]:
    """The samples of a project nearest to a file or, where no such file exists, to the query as words.

    Words are placed as texts about categories are; of modality `text`, as a text sample is. `into` restricts
    the hits to one modality. `space` and `galleries` are the project's, if already loaded. Raises
    SampleError for an unreadable file, and for a query that looks like a file name but does not exist;
    KnowledgeBaseError where no sample is encoded.
    """
    if into is not None and into not in MODALITIES:
        raise InputError(f"--into {into}: unknown modality; the modalities are {', '.join(MODALITIES)}")
    path = _file_of(query, modality, say)
    space = space or Space(project)
    use_budget(project.data.budget)
    if path is None:
        query_1D = space.place_words(query) if modality is None else space.place("text", query)[0]
    else:
        query_1D = space.place_among_samples(modality_of(path, modality, unreadable(path)), path)
    hits = []
    found = space.galleries(into) if galleries is None else galleries
    for gallery in found:
        if into in (None, gallery.modality):
            hits += nearest_hits(space.kb, gallery, query_1D, top)
    if not hits:
        raise KnowledgeBaseError(
            f"{project.kb}: no {into or ''} sample is encoded in the text space; run `unibind train`"
        )
    best = sorted(hits, key=lambda hit: (-hit.score, hit.sample_id))[:top]
    uris = _uris(project.kb, [hit.sample_id for hit in best])
    return [replace(hit, uri=uris.get(hit.sample_id)) for hit in best]


def nearest_hits(kb: KnowledgeBase, gallery: Gallery, query_1D: Floats, top: int) -> list[Hit]:
    """The samples of a gallery nearest to a query of its space (float32[1, D]), best first."""
    indices_1T, scores_1T = nearest(query_1D, gallery.vectors_ND, top)
    hits = []
    for index, cosine in zip(indices_1T[0].tolist(), scores_1T[0].tolist(), strict=True):
        number = int(gallery.category_N[index])
        known = (kb.names[number], kb.categories[number]) if number >= 0 else (None, None)
        hits.append(Hit(gallery.sample_ids[index], gallery.modality, known[0], cosine, known[1]))
    return hits


def _file_of(query: str, modality: str | None, say: Callable[[str], None]) -> Path | None:
    """The file that a query names; None for a text. Raises SampleError for the name of a missing file."""
    if not query.strip():
        raise InputError("the query is empty; give a file or a text")
    path = Path(query)
    if os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises for texts that are too long for a file name)
        return path
    if modality not in (None, "text"):
        raise SampleError(f"{query}: {unreadable(path) or 'no such file'}")
    if modality is None and not any(letter.isspace() for letter in query) and guess_modality(path):
        raise SampleError(
            f"{query}: {unreadable(path) or 'no such file'}; --modality text searches for it as a text"
        )
    if os.path.lexists(path):
        say(f"{query} is a folder or a device, so it is used as a text")
    return None


def _uris(kb: Path, sample_ids: Sequence[str]) -> dict[str, str]:
    """The files of some samples, relative to the data folder."""
    table = read_columns(kb / "samples.parquet", ["sample_id", "uri"], hint="unibind ingest")
    rows = table.filter(pc.is_in(table["sample_id"], value_set=pa.array(sample_ids, pa.string())))
    return dict(zip(rows["sample_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
