"""Recognise and retrieve new files, with the text that spoke for each answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data.category_list import read_categories
from data.errors import InputError, KnowledgeBaseError, SampleError, TrainingError
from data.modality import MODALITIES, Modality, guess_modality
from data.readers import use_budget, warm_up
from data.readers.axes import told_up, turned
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import Encoder, Source
from kb_builder.encoders.workers import encode_texts
from pipeline.project import Project
from pipeline.temperatures import load_temperatures
from trainer.calibration import probabilities
from trainer.centers import load_centers
from trainer.heads import has_heads, load_heads
from trainer.inputs import KnowledgeBase, center_texts, encoder_card, load_samples, open_kb
from trainer.records import Centers, Floats
from trainer.retrieval import nearest
from trainer.scoring import category_scores, score

ALIGNED, ZERO_SHOT, TEXT = "aligned heads", "zero-shot", "text encoder"
# What the evaluation calls them. Texts are in the text space under either model.
_EVALUATED = {ALIGNED: ("aligned",), ZERO_SHOT: ("zero_shot",), TEXT: ("aligned", "zero_shot")}
_WHY_CHARS = 90


@dataclass(frozen=True)
class Answer:
    """One category for a file: its score by the project's scorer, and the text of its nearest center.

    `probability`, among all the project's categories, is None where nothing was calibrated.
    """

    category: str
    score: float
    why: str
    probability: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What a file was taken for, best first; or why it could not be read."""

    file: str
    modality: str
    model: str
    answers: tuple[Answer, ...] = ()
    error: str | None = None
    uncalibrated: str | None = None  # why the answers have no probability

    def told(self) -> str:
        """The prediction as lines for a terminal."""
        if self.error is not None:
            return f"{self.file}: error: {self.error}"
        width = max((len(answer.category) for answer in self.answers), default=0)
        lines = [f"{self.file}  ({self.modality}, {self.model})"]
        for rank, answer in enumerate(self.answers, start=1):
            share = "" if answer.probability is None else f"  {answer.probability:>6.1%}"
            line = (
                f"  {rank}  {answer.category:<{width}}  {answer.score:.3f}{share}  {_shortened(answer.why)}"
            )
            lines.append(line.rstrip())
        if self.uncalibrated is not None:
            lines.append(f"  no probability: {self.uncalibrated}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Hit:
    """One sample found by retrieval."""

    sample_id: str
    modality: str
    category: str | None
    score: float

    def told(self) -> str:
        """The hit as a line for a terminal."""
        return f"{self.score:.3f}  {self.modality:<8} {self.sample_id}" + (
            f"  ({self.category})" if self.category else ""
        )


def predict_files(
    project: Project, given: Iterable[tuple[Path, str | None]], *, top: int = 5
) -> Iterator[Prediction]:
    """Recognise files among a project's categories: (path, modality or None to guess it from the name).

    Uses the aligned head of the file's modality, else the zero-shot encoder where that covers it; the scorer
    of [evaluate], and the temperature that the evaluation fitted for that modality and model. A file that
    cannot be read gives a Prediction with `error`; a project without centers raises KnowledgeBaseError.
    """
    use_budget(project.data.budget)
    warm_up()
    space = _Space(project)
    centers = load_centers(space.kb)
    scorer, temperatures = project.evaluate.scorer, load_temperatures(project)
    texts = center_texts(space.kb.folder, centers.row_ids)
    for path, modality in given:
        try:
            known = _modality(path, modality)
            query_1D, model = space.place(known, path)
        except (SampleError, TrainingError) as error:
            yield Prediction(str(path), modality or "unknown", "", error=str(error))
            continue
        ranked = score(query_1D, centers, scorer=scorer, top=top)
        temperature, uncalibrated = temperatures.of(known, _EVALUATED[model])
        shares_C: list[float | None] = [None] * len(centers.categories)
        if temperature is not None:
            shares_C = probabilities(category_scores(query_1D, centers, scorer), temperature)[0].tolist()
        answers = tuple(
            Answer(space.kb.names[category], value, texts.get(why, ""), shares_C[category])
            for category, value, why in zip(
                ranked.categories_NT[0].tolist(),
                ranked.scores_NT[0].tolist(),
                ranked.why(centers, 0),
                strict=True,
            )
        )
        yield Prediction(str(path), known, model, answers, uncalibrated=uncalibrated)


def predict_zero_shot(
    given: Iterable[tuple[Path, str | None]], categories: str, *, encoder: str | None = None, top: int = 5
) -> Iterator[Prediction]:
    """Recognise files among bare names, without a project, by encoders that share one space untrained.

    `categories` is "imagenet" (the thousand class names), a category list, or names separated by commas.
    `encoder` is one that takes texts and media, such as `clip:FOLDER`; None: MiniLM with ConSE. Raises
    InputError where it takes no texts.
    """
    warm_up()
    names = _category_names(categories)
    text, media = _shared_space(encoder)
    vectors_CD = encode_texts(text, names, what="category names")
    centers = Centers(
        categories=tuple(names),
        row_ids=tuple(names),
        category_N=np.arange(len(names), dtype=np.int64),
        vectors_ND=vectors_CD,
    )
    for path, modality in given:
        try:
            known = _modality(path, modality)
            model = text if known == "text" else media
            if known not in model.modalities:
                raise SampleError(
                    f"no encoder here shares the text space for {known} without training; "
                    f"zero-shot takes {', '.join(sorted(media.modalities | {'text'}))}. "
                    "Name a trained project with --project instead of --categories"
                )
            query_1D = model.encode([model.prepare(known, path)])
        except SampleError as error:
            yield Prediction(str(path), modality or "unknown", "", error=str(error))
            continue
        ranked = score(query_1D, centers, top=top)
        answers = tuple(
            Answer(names[category], float(cosine), "")
            for category, cosine in zip(ranked.categories_NT[0], ranked.scores_NT[0], strict=True)
        )
        yield Prediction(
            str(path),
            known,
            ZERO_SHOT,
            answers,
            uncalibrated="bare names have no val samples to calibrate on",
        )


def _shared_space(name: str | None) -> tuple[Encoder, Encoder]:
    """The encoders of texts and of media."""
    if name is None:
        return load_encoder("minilm"), load_encoder("conse")
    both = load_encoder(name)
    if "text" not in both.modalities:
        raise InputError(
            f"--encoder {name}: takes no texts, so names cannot be compared; use e.g. clip:FOLDER"
        )
    return both, both


def retrieve_samples(
    project: Project, query: str, *, modality: str | None = None, into: str | None = None, top: int = 10
) -> list[Hit]:
    """The samples of a project nearest to a file or, where no such file exists, to the words themselves.

    `into` keeps to one modality. Raises SampleError for an unreadable file and KnowledgeBaseError where
    nothing is encoded that could be found.
    """
    if into is not None and into not in MODALITIES:
        raise InputError(f"--into {into}: unknown modality; the modalities are {', '.join(MODALITIES)}")
    space = _Space(project)
    path = Path(query)
    use_budget(project.data.budget)
    if path.exists():
        query_1D, _ = space.place(_modality(path, modality), path)
    elif modality not in (None, "text"):
        raise SampleError(f"{query}: no such file")
    else:
        query_1D, _ = space.place("text", query)
    hits = []
    for name, gallery_ND, sample_ids, categories in space.galleries(into):
        indices_1T, scores_1T = nearest(query_1D, gallery_ND, top)
        hits += [
            Hit(sample_ids[index], name, categories[index], float(cosine))
            for index, cosine in zip(indices_1T[0], scores_1T[0], strict=True)
        ]
    if not hits:
        raise KnowledgeBaseError(
            f"{project.kb}: no {into or ''} sample is encoded in the text space; run `unibind train`"
        )
    return sorted(hits, key=lambda hit: (-hit.score, hit.sample_id))[:top]


class _Space:
    """A project's unified space: its encoders, loaded when needed, and its heads where it has some."""

    def __init__(self, project: Project) -> None:
        self.kb: KnowledgeBase = open_kb(project.kb)
        self._up = project.data.up_axis
        self.heads = load_heads(project.run) if has_heads(project.run) else None

    def place(self, modality: Modality, source: Path | str) -> tuple[Floats, str]:
        """A file or text as one unit row of the text space (float32[1, D]), and by which model."""
        if modality == "text":
            return self._encode(self._text, modality, source), TEXT
        if self.heads is not None and modality in self.heads.modalities:
            return self.heads.map(modality, self._encode(self._samples, modality, source)), ALIGNED
        if self._zero_shot is not None and modality in self._zero_shot.modalities:
            return self._encode(self._zero_shot, modality, source), ZERO_SHOT
        raise TrainingError(
            f"nothing places {modality} in this project's space; it needs a trained head: "
            f"add {modality} samples to the train split and run `unibind train`"
        )

    def galleries(
        self, into: str | None
    ) -> Iterator[tuple[str, Floats, Sequence[str], Sequence[str | None]]]:
        """Per modality: its samples' vectors in the text space, their ids, their category names."""
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
            names = [self.kb.names[number] if number >= 0 else None for number in samples.category_N]
            yield modality, vectors_ND, samples.sample_ids, names

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
        card = encoder_card(self.kb.encoder(role))
        encoder = load_encoder(card["name"])
        if encoder.identity != card["identity"]:
            raise KnowledgeBaseError(
                f"the {role} encoder {card['name']!r} has changed since this knowledge base was encoded "
                "(other weights or preprocessing); run `unibind run` again"
            )
        return encoder

    def _encode(self, encoder: Encoder, modality: Modality, source: Source) -> Floats:
        if isinstance(source, Path):
            source = turned(source, told_up(modality, source, self._up))
        return encoder.encode([encoder.prepare(modality, source)])


def _modality(path: Path, given: str | None) -> Modality:
    if given is not None and given not in MODALITIES:
        raise InputError(f"--modality {given}: unknown; the modalities are {', '.join(MODALITIES)}")
    known = next((name for name in MODALITIES if name == given), None) or guess_modality(path)
    if known is None:
        raise SampleError(f"{path.name}: its ending does not tell its modality; give --modality")
    return known


def _category_names(categories: str) -> list[str]:
    if categories == "imagenet":
        from kb_builder.encoders.imagenet import class_names

        return class_names()
    if Path(categories).is_file():
        return [category.name for category in read_categories(Path(categories))]
    names = [name.strip() for name in categories.split(",") if name.strip()]
    if len(names) < 2:
        raise InputError(
            f"--categories {categories}: not a file, not `imagenet`, not names separated by commas"
        )
    return names


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WHY_CHARS else line[: _WHY_CHARS - 1] + "…"
