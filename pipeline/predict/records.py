"""Predictions and hits as JSON and CSV: `--json` and `--csv` of `unibind predict` and `unibind retrieve`.

docs/scripts.md lists the fields. Numbers are not rounded; missing values are null in JSON and empty in CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.show import json_text, visible
from pipeline.predict.answers import ALIGNED, MEAN, TEXT, ZERO_SHOT, Hit, Prediction

_MODELS = {ALIGNED: "aligned", ZERO_SHOT: "zero_shot", TEXT: "text", MEAN: "mean"}
PREDICTION = ("file", "modality", "model", "error", "no_probability", "answers", "others", "favoured")
OTHER = ("model", "category_id", "category", "score")
FAVOURED = ("category_id", "category", "constant")
ANSWER = ("rank", "category_id", "category", "score", "probability", "why")
HIT = ("rank", "sample_id", "modality", "category_id", "category", "uri", "score")
PREDICTION_COLUMNS = ("file", "modality", "model", *ANSWER, "no_probability", "error")


def predictions_json(predictions: Iterable[Prediction], notes: Sequence[str]) -> str:
    """One JSON object with `predictions` and `notes` on what was left out."""
    return json_text({"predictions": [_prediction(each) for each in predictions], "notes": list(notes)})


def predictions_csv(predictions: Iterable[Prediction]) -> str:
    """One row for each answer, and one for each file that has none; a header first."""
    return _csv(PREDICTION_COLUMNS, prediction_rows(predictions))


def prediction_rows(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """The rows of that table, with at least the keys `PREDICTION_COLUMNS`; None where CSV is empty."""
    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        record = dict.fromkeys(PREDICTION_COLUMNS) | _prediction(prediction)
        rows += [{**record, **answer} for answer in record["answers"] or [{}]]
    return rows


def hits_json(query: str, hits: Sequence[Hit], notes: Sequence[str]) -> str:
    """One JSON object: the `query`, its `hits`, and `notes`."""
    return json_text({"query": query, "hits": hit_rows(hits), "notes": list(notes)})


def hits_csv(hits: Sequence[Hit]) -> str:
    """One row for each hit; a header first."""
    return _csv(HIT, hit_rows(hits))


def _prediction(prediction: Prediction) -> dict[str, Any]:
    failed = prediction.error is not None
    answers = [
        dict(
            zip(
                ANSWER,
                (rank, each.category_id, each.category, each.score, each.probability, each.why or None),
                strict=True,
            )
        )
        for rank, each in enumerate(prediction.answers, start=1)
    ]
    values = (
        prediction.file,
        None if failed and prediction.modality == "unknown" else prediction.modality,
        _MODELS.get(prediction.model),
        prediction.error,
        prediction.uncalibrated,
        answers,
        [
            dict(zip(OTHER, (_MODELS[o.model], o.category_id, o.category, o.score), strict=True))
            for o in prediction.others
        ],
        None
        if (one := prediction.favoured) is None
        else dict(zip(FAVOURED, (one.category_id, one.category, one.constant), strict=True)),
    )
    return dict(zip(PREDICTION, values, strict=True))


def hit_rows(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """One row for each hit, with the keys `HIT`."""
    return [
        dict(
            zip(
                HIT,
                (
                    rank,
                    hit.sample_id,
                    hit.modality,
                    hit.category_id,
                    hit.category,
                    hit.uri,
                    hit.score,
                ),
                strict=True,
            )
        )
        for rank, hit in enumerate(hits, start=1)
    ]


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """RFC 4180 with \\n as line end. CSV has no escapes, so control characters are written as `\\x1b`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(name) for name in columns)
        writer.writerow([visible(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue().removesuffix("\n")
