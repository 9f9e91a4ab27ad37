"""Recognise and retrieve new files with a project: `predict_files`, `retrieve_samples`, and their parts.

`Space` maps a file into the text space; what the evaluation found is in pipeline/predict/evaluated.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError, SampleError, TrainingError
from data.modality import MODALITIES, Modality, guess_modality
from data.readers import use_budget, warm_up
from data.readers.axes import turned, up_override
from data.seals import check
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import Encoder, Source
from kb_builder.encoders.workers import encode_one
from kb_builder.store.cards import read_card
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
from pipeline.project import ProjectFile
from trainer.align.heads import has_heads, load_heads
from trainer.evaluate.calibration import probabilities
from trainer.evaluate.trust.answers import centers_by_model
from trainer.inputs import KnowledgeBase, center_texts, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.records import Bools, Centers, Doubles, Floats, Ints
from trainer.score.scoring import category_scores, nearest_center
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
class Recogniser:
    """A project loaded to recognise files: encoders, heads, centers, scorer."""

    project: ProjectFile
    space: Space
    centers: Mapping[str, Centers]  # by the model whose vectors are compared with them
    texts: Mapping[str, str]  # of the centers, by row id
    evaluated: Evaluated
    seen_C: Bools  # the categories with train samples

    def with_centers(self, centers: Centers) -> Recogniser:
        """The same with other centers, as `load_centers` returns them; heads and evaluation stay."""
        return replace(self, centers=_by_model(centers, self.space))

    @property
    def candidates(self) -> Bools:
        """The categories that can be an answer."""
        return next(iter(self.centers.values())).counts() > 0

    def constant(self, modality: str, models: Sequence[str]) -> float:
        """What is taken off trained categories: 0 where no untrained one competes, or none was found."""
        can_be_C = self.candidates
        if (self.seen_C & can_be_C).any() and (~self.seen_C & can_be_C).any():
            for model in models:
                if (modality, model) in self.evaluated.constants:
                    return self.evaluated.constants[modality, model]
        return 0.0


def _by_model(centers: Centers, space: Space) -> dict[str, Centers]:
    by_model = centers_by_model(centers, space.heads)
    return {**by_model, TEXT: by_model["aligned"]}


def open_recogniser(project: ProjectFile, space: Space | None = None) -> Recogniser:
    """Load a project to recognise files; `space` is the project's, if already loaded.

    Raises KnowledgeBaseError where the project has no knowledge base, vectors or centers.
    """
    space = space or Space(project)
    centers = load_centers(space.kb)
    return Recogniser(
        project=project,
        space=space,
        centers=_by_model(centers, space),
        texts=center_texts(space.kb.folder, centers.row_ids),
        evaluated=load_evaluated(project),
        seen_C=seen_categories(space.kb),
    )


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
        yield predicted(recogniser, str(path), known, placed, top)


class Judged(NamedTuple):
    """The scores of N samples of one modality, as `unibind predict` ranks the categories by them."""

    used: str  # the model that answers: zero_shot, aligned, mean, or TEXT
    score_NC: Doubles  # of every category; minus infinity for one without centers
    scores: Mapping[str, Doubles]  # by every model, before the constant is taken off: float64[N, C]
    constant: float  # that is off the trained categories in `score_NC`
    shares_NC: Doubles | None  # the probabilities; None without a calibration
    uncalibrated: str | None  # why there are none
    shown_by: str  # the model whose nearest texts are shown


def judge(recogniser: Recogniser, modality: str, placed: Mapping[str, Floats]) -> Judged:
    """Score samples, placed in the text space by one model (`TEXT`) or by several (float32[N, D])."""
    evaluated = recogniser.evaluated
    scores = _scores(placed, recogniser.centers, recogniser.project.evaluate.scorer)
    used = evaluated.wanted(modality, placed) if TEXT not in placed else TEXT
    models = EVALUATED[_TITLES.get(used, used)]
    constant = recogniser.constant(modality, models)
    score_NC = scores[used] - np.where(recogniser.seen_C, constant, 0.0)
    temperature, uncalibrated = evaluated.temperatures.of(modality, models)
    shares_NC = None
    if recogniser.candidates.sum() == 1:
        uncalibrated = "the project has only one category"
    elif temperature is not None:
        shares_NC = probabilities(score_NC, temperature)
    shown_by = used if used in placed else "aligned"
    return Judged(used, score_NC, scores, constant, shares_NC, uncalibrated, shown_by)


def predicted(
    recogniser: Recogniser, file: str, modality: Modality, placed: Mapping[str, Floats], top: int
) -> Prediction:
    """The answers for one file or sample, placed in the text space by one model or by several."""
    kb = recogniser.space.kb
    judged = judge(recogniser, modality, placed)
    score_C = judged.score_NC[0]
    query_1D, centers = placed[judged.shown_by], recogniser.centers[judged.shown_by]
    n_ranked = min(top, int(recogniser.candidates.sum()))
    ranked = np.argsort(-score_C, kind="stable")[:n_ranked].tolist()
    without = int(judged.scores[judged.used][0].argmax())
    favoured = None
    if ranked[0] != without:
        favoured = Favoured(kb.names[without], centers.categories[without], judged.constant)
    return Prediction(
        file,
        modality,
        _TITLES.get(judged.used, judged.used),
        tuple(
            NamedCategory(
                kb.names[category],
                float(score_C[category]),
                recogniser.texts.get(nearest_center(query_1D, centers, category), ""),
                None if judged.shares_NC is None else float(judged.shares_NC[0, category]),
                centers.categories[category],
            )
            for category in ranked
        ),
        uncalibrated=judged.uncalibrated,
        others=tuple(
            OtherAnswer(_TITLES[name], kb.names[best], float(score_1C[0, best]), centers.categories[best])
            for name, score_1C in judged.scores.items()
            if name != judged.used
            for best in [int(score_1C[0].argmax())]
        ),
        favoured=favoured,
    )


def _scores(
    placed: Mapping[str, Floats], centers: Mapping[str, Centers], scorer: Scorer
) -> dict[str, Doubles]:
    """The score of every category, by each model that places the samples, and by the mean: float64[N, C]."""
    scores = {
        model: category_scores(query_ND, centers[model], scorer).astype(np.float64)
        for model, query_ND in placed.items()
    }
    if len(scores) == 2:
        scores["mean"] = (scores["zero_shot"] + scores["aligned"]) / 2
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
        query_1D, _ = space.place_query("text" if modality else None, query)
    else:
        query_1D, _ = space.place_query(modality_of(path, modality, unreadable(path)), path)
    hits = []
    found = space.galleries(into) if galleries is None else galleries
    for name, gallery_ND, sample_ids, category_N in found:
        if into not in (None, name):
            continue
        indices_1T, scores_1T = nearest(query_1D, gallery_ND, top)
        for index, cosine in zip(indices_1T[0], scores_1T[0], strict=True):
            number = int(category_N[index])
            known = (space.kb.names[number], space.kb.categories[number]) if number >= 0 else (None, None)
            hits.append(Hit(sample_ids[index], name, known[0], float(cosine), known[1]))
    if not hits:
        raise KnowledgeBaseError(
            f"{project.kb}: no {into or ''} sample is encoded in the text space; run `unibind train`"
        )
    best = sorted(hits, key=lambda hit: (-hit.score, hit.sample_id))[:top]
    uris = _uris(project.kb, [hit.sample_id for hit in best])
    return [replace(hit, uri=uris.get(hit.sample_id)) for hit in best]


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


class Gallery(NamedTuple):
    """The samples of one modality in the text space."""

    modality: str
    vectors_ND: Floats
    sample_ids: Sequence[str]
    category_N: Ints  # -1: none


class Space:
    """A project's shared space: its encoders, loaded on first use, and its heads if it has any."""

    def __init__(self, project: ProjectFile) -> None:
        check(project.kb / "categories.parquet")  # there once, it is not "no knowledge base yet"
        if not (project.kb / "categories.parquet").is_file():
            raise KnowledgeBaseError(
                f"{project.kb} holds no knowledge base yet; run `unibind run --project {project.path}` first"
            )
        self.kb: KnowledgeBase = open_kb(project.kb)
        self._up = project.data.up_axis
        self.heads = load_heads(project.run) if has_heads(project.run) else None

    def place(self, modality: Modality, source: Path | str) -> tuple[Floats, str]:
        """A sample as one unit vector of the shared space (float32[1, D]), and the model that made it.

        Of the zero-shot encoder, and of a text where there are no heads, it is one of the text space.
        """
        if modality == "text":
            text_1D = self._encode(self._text, modality, source)
            if self.heads is None:
                return text_1D, TEXT
            model = ALIGNED if "text" in self.heads.weights else TEXT
            return self.heads.map("text", text_1D), model
        if self.heads is not None and modality in self.heads.modalities:
            return self.heads.map(modality, self._encode(self._samples, modality, source)), ALIGNED
        if self._zero_shot is not None and modality in self._zero_shot.modalities:
            return self._encode(self._zero_shot, modality, source), ZERO_SHOT
        raise TrainingError(
            f"nothing maps {modality} into this project's text space; it needs a trained head: "
            f"add {modality} samples to the train split and run `unibind train`"
        )

    def place_words(self, words: str) -> Floats:
        """A user's words as one unit vector of the shared space (float32[1, D])."""
        text_1D = self._encode(self._text, "text", words)
        return text_1D if self.heads is None else self.heads.place_text(text_1D)

    def place_query(
        self, modality: Modality | None, source: Path | str, placed: Mapping[str, Floats] | None = None
    ) -> tuple[Floats, str]:
        """A query as one unit vector of the space of `galleries` (float32[1, D]), and the model that made it.

        Words have the modality None; `placed` is what `place_by_model` made of the same file, if known.
        """
        if modality is None:
            return self.place_words(str(source)), TEXT
        known = placed or {}
        for name, title in (("aligned", ALIGNED), (TEXT, TEXT)):
            if name in known:
                return known[name], title
        if "zero_shot" in known and not (self.heads and modality in self.heads.modalities):
            query_1D, model = known["zero_shot"], ZERO_SHOT
        else:
            query_1D, model = self.place(modality, source)
        if model == ZERO_SHOT and self.heads is not None:
            query_1D = self.heads.place_text(query_1D)  # the galleries are in the space of the heads
        return query_1D, model

    def place_by_model(
        self, modality: Modality, source: Path | str, *, use: str = "auto"
    ) -> dict[str, Floats]:
        """A file or text as a unit vector of the text space (float32[1, D]) by each model that can place it.

        Keys: `aligned`, `zero_shot`, or `TEXT` for a text, which needs neither. Where both can, `use` of
        [predict] may ask for one alone, so that the other encoder does not run. Raises what `place` raises.
        """
        head = self.heads is not None and modality in self.heads.weights
        if not head and modality == "text":
            return {TEXT: self.place(modality, source)[0]}
        found: dict[str, Floats] = {}
        untrained = None
        if modality in self._untrained_modalities and not (head and use == "heads"):
            untrained = self._text if modality == "text" else self._zero_shot
        if untrained is not None:
            found["zero_shot"] = self._encode(untrained, modality, source)
        if head and not (found and use == "zero-shot"):
            found["aligned"] = self.place(modality, source)[0]
        if not found:
            self.place(modality, source)  # says why nothing can
        return found

    def galleries(self, into: str | None) -> Iterator[Gallery]:
        """The encoded samples of each modality, or of one."""
        sets, _ = load_samples(self.kb, "zero_shot" if self.heads is None else "samples")
        for modality, samples in sets.items():
            if into not in (None, modality):
                continue
            if self.heads is None:
                vectors_ND = samples.vectors_ND
            elif modality in self.heads.modalities:
                vectors_ND = self.heads.map(modality, samples.vectors_ND)
            else:
                continue
            yield Gallery(modality, vectors_ND, samples.sample_ids, samples.category_N)

    @property
    def text_encoder(self) -> Encoder:
        """The encoder of texts, loaded on first use."""
        return self._text

    @cached_property
    def _untrained_modalities(self) -> frozenset[str]:
        """What the zero-shot encoder takes, by its card, so that it is not loaded for what it does not."""
        if not self.kb.encoders.get("zero_shot"):
            return frozenset()
        return frozenset({"text", *read_card(self.kb.encoder("zero_shot")).get("modalities", ())})

    @cached_property
    def _text(self) -> Encoder:
        return self._load("text")

    @cached_property
    def _samples(self) -> Encoder:
        return self._load("samples")

    @cached_property
    def _zero_shot(self) -> Encoder | None:
        return self._load("zero_shot") if self.kb.encoders.get("zero_shot") else None

    def _load(self, role: str) -> Encoder:
        card = read_card(self.kb.encoder(role))
        encoder = load_encoder(card["name"])
        if encoder.identity != card["identity"]:
            raise KnowledgeBaseError(
                f"the {role} encoder {card['name']!r} has changed since this knowledge base was encoded "
                "(other weights or preprocessing); run `unibind run` again"
            )
        return encoder

    def _encode(self, encoder: Encoder, modality: Modality, source: Source) -> Floats:
        if isinstance(source, Path):
            source = turned(source, up_override(modality, source, self._up))
        return encode_one(encoder, modality, source)
