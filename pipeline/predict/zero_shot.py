"""Recognise files among bare category names, without a project.

Imports little besides torch: a single photo is answered as soon as torch is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data.errors import InputError, SampleError
from data.readers import warm_up
from kb_builder.encoders import load_encoder
from kb_builder.encoders.base import Encoder
from kb_builder.encoders.workers import encode_one, encode_texts
from pipeline.predict.answers import (
    ZERO_SHOT,
    NamedCategory,
    Prediction,
    failed,
    modality_of,
    say_on_stderr,
)
from pipeline.predict.names import category_names
from pipeline.predict.paths import each_file
from trainer.records import Centers
from trainer.score.scoring import score


def predict_zero_shot(
    given: Iterable[tuple[Path, str | None]],
    categories: str,
    *,
    encoder: str | None = None,
    top: int = 5,
    say: Callable[[str], None] = say_on_stderr,
) -> Iterator[Prediction]:
    """Recognise files among bare names, without a project, by encoders that share one space untrained.

    `categories` is "imagenet" (the thousand class names), a category list, or names separated by commas.
    `encoder` is one that takes texts and media, such as `clip:FOLDER`; None: MiniLM with ConSE. A folder
    means the files in it. `say` gets what is left out of it, and of the names. Raises InputError where
    the encoder takes no texts, and for fewer than two names.
    """
    warm_up()
    names = category_names(categories, say)
    text, media = _shared_space(encoder)
    vectors_CD = encode_texts(text, names, what="category names")
    centers = Centers(
        categories=tuple(names),
        row_ids=tuple(names),
        category_N=np.arange(len(names), dtype=np.int64),
        vectors_ND=vectors_CD,
    )
    for path, modality, reason in each_file(given, say):
        try:
            known = modality_of(path, modality, reason)
            model = text if known == "text" else media
            if known not in model.modalities:
                raise SampleError(
                    f"no encoder here shares the text space for {known} without training; "
                    f"zero-shot takes {', '.join(sorted(media.modalities | {'text'}))}. "
                    "Name a trained project with --project instead of --categories"
                )
            query_1D = encode_one(model, known, path)
        except SampleError as error:
            yield failed(path, modality, error)
            continue
        ranked = score(query_1D, centers, top=top)
        answers = tuple(
            NamedCategory(names[category], float(cosine), "")
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
    """The encoders of texts and of media: one that takes both, or MiniLM with ConSE."""
    if name is None:
        return load_encoder("minilm"), load_encoder("conse")
    both = load_encoder(name)
    if "text" not in both.modalities:
        raise InputError(
            f"--encoder {name}: takes no texts, so it cannot compare names; use e.g. clip:FOLDER"
        )
    return both, both
