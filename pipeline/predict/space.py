"""A project's shared space: files, texts and stored samples as unit vectors that can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data.errors import KnowledgeBaseError, TrainingError
from data.modality import Modality
from data.readers.axes import turned, up_override
from data.seals import check
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import Encoder, Source
from kb_builder.encoders.workers import encode_one
from kb_builder.store.cards import read_card
from pipeline.predict.answers import ALIGNED, TEXT, ZERO_SHOT
from pipeline.project import ProjectFile
from trainer.align.heads import has_heads, load_heads
from trainer.inputs import KnowledgeBase, load_samples, open_kb
from trainer.records import Floats, Ints, SampleSet


class Gallery(NamedTuple):
    """The samples of one modality in the text space."""

    modality: str
    vectors_ND: Floats
    sample_ids: Sequence[str]
    category_N: Ints  # -1: none

    @classmethod
    def of(cls, samples: SampleSet) -> Gallery:
        """Samples that are in the text space already."""
        return cls(samples.modality, samples.vectors_ND, samples.sample_ids, samples.category_N)


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

    def place_among_samples(
        self, modality: Modality, source: Path | str, placed: Mapping[str, Floats] | None = None
    ) -> Floats:
        """A file or text as one unit vector in the space of the galleries (float32[1, D]).

        `placed`, if given, is what `place_by_model` returned for it. Raises what `place` raises.
        """
        placed = placed or {}
        has_head = self.heads is not None and modality in self.heads.modalities
        if not ({"aligned", TEXT} & placed.keys() or ("zero_shot" in placed and not has_head)):
            query_1D, model = self.place(modality, source)
            placed = {"zero_shot" if model == ZERO_SHOT else "aligned": query_1D}
        return self.among_samples(placed)

    def among_samples(self, placed: Mapping[str, Floats]) -> Floats:
        """What `place_by_model` returned, in the space of the galleries: float32[1, D]."""
        known_1D = placed.get("aligned", placed.get(TEXT))
        if known_1D is not None:
            return known_1D
        return placed["zero_shot"] if self.heads is None else self.heads.place_text(placed["zero_shot"])

    def samples(self, into: str | None = None) -> dict[str, SampleSet]:
        """The encoded samples in the text space, by modality, of all or of one."""
        sets, _ = load_samples(self.kb, "zero_shot" if self.heads is None else "samples")
        shown = {name: each for name, each in sets.items() if into in (None, name)}
        if self.heads is None:
            return shown
        return {
            name: replace(each, vectors_ND=self.heads.map(name, each.vectors_ND))
            for name, each in shown.items()
            if name in self.heads.modalities
        }

    def galleries(self, into: str | None) -> Iterator[Gallery]:
        """The encoded samples of each modality, or of one."""
        for each in self.samples(into).values():
            yield Gallery.of(each)

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
