"""Part `growth` of `make bench-store`: encode, localize and score from 10³ to 10⁶ descriptions.

    python -m bench.store_growth STEP KB      one step in a separate process; prints seconds and memory

MiniLM takes hours for a million texts and would hide all other costs. So all sizes are encoded with its first
layer alone, and those up to 10⁵ with the whole model too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.child import run
from bench.memory import memory_rise
from bench.rows import row
from bench.vectors import names, texts, unit
from data.files import hash_text, write_json
from kb_builder.settings import Encode
from kb_builder.store.table import write_vectors
from kb_builder.tables.schemas import CATEGORIES, DESCRIPTIONS, SAMPLES, write_table

SIZES = (1_000, 10_000, 100_000, 1_000_000)
WHOLE_MODEL_UP_TO = 100_000
QUERIES = 10_000
_SAMPLES = 10  # per category, of the train split
_ROWS = 50_000  # of one file of descriptions


def measure_growth(*, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The rows: the seconds and the peak of memory of each size and step, measured once."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        _first_layer(folder / "one-layer")
        for size in (int(size * scale) for size in SIZES):
            kb = folder / f"kb-{size}"
            _write_kb(kb, size)
            for step in ("encode", "encode-minilm", "localize", "score"):
                if step == "encode-minilm" and size > WHOLE_MODEL_UP_TO * scale:
                    continue
                ended = run([sys.executable, "-m", "bench.store_growth", step, kb])
                if ended.code:
                    rows.append(row(f"{step} {size:,}", None, "s", note=ended.failure))
                    continue
                seconds, peak_mb, rise_mb = json.loads(ended.last_line)
                rows.append(row(f"{step} {size:,}", seconds, "s", note=f"{size / seconds:,.0f}/s"))
                rows.append(
                    row(f"{step} {size:,}: peak of memory", peak_mb, "MB", note=f"{rise_mb:.0f} MB its own")
                )
    return rows


def _first_layer(folder: Path) -> None:
    """The bundled MiniLM without its upper layers, as a sentence-transformers folder."""
    from kb_builder.encoders.sentence import load_sentence_encoder

    model: Any = load_sentence_encoder("minilm")
    transformer = model.model[0].auto_model
    layers = transformer.encoder.layer
    transformer.encoder.layer, transformer.config.num_hidden_layers = layers[:1], 1
    model.model.save(str(folder))


def _write_kb(kb: Path, n: int) -> None:
    """Categories of a thousand descriptions each (of a hundred where there are few), and their samples."""
    categories = max(10, n // 1_000)
    ids, owners = names(n, categories)
    written = texts(n)
    draw = np.random.default_rng(7)
    for number, start in enumerate(range(0, n, _ROWS)):
        stop = min(start + _ROWS, n)
        columns: dict[str, Any] = {
            "row_id": ids[start:stop],
            "category_id": owners[start:stop],
            "text": written[start:stop],
            "kind": ["category"] * (stop - start),
            "status": ["ok"] * (stop - start),
        }
        path = kb / "descriptions" / "category" / f"part-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_filled(columns, stop - start), path)
    named = sorted(set(owners))
    write_table(
        kb / "categories.parquet",
        [{"category_id": c, "name": c, "aliases": [], "parent": None, "notes": None} for c in named],
        CATEGORIES,
    )
    samples = [
        {
            "sample_id": f"{category}-{number}",
            "object_id": None,
            "modality": "image",
            "uri": f"{category}-{number}.png",
            "category_id": category,
            "split": "train",
            "sha256": hash_text(f"{category}-{number}"),
            "bytes": 1,
        }
        for category in named
        for number in range(_SAMPLES)
    ]
    write_table(kb / "samples.parquet", samples, SAMPLES)
    folder = kb / "embeddings" / "samples-bench-float16"
    card = {"name": "bench", "identity": "bench", "dim": 384, "licence": "none", "modalities": ["image"]}
    write_json(folder / "encoder.json", card)
    write_json(kb / "embeddings" / "encoders.json", {"zero_shot": folder.name, "samples": folder.name})
    write_vectors(
        folder / "samples",
        ids=[sample["sample_id"] for sample in samples],
        groups=["image"] * len(samples),
        vectors_ND=unit(len(samples), seed=int(draw.integers(99))),
        encoder="bench",
    )


def _filled(columns: dict[str, Any], n: int) -> pa.Table:
    """A table of descriptions; columns that are not given are null, or empty where null is not allowed."""

    def column(field: pa.Field) -> pa.Array:
        if field.name in columns:
            return pa.array(columns[field.name], field.type)
        if field.nullable:
            return pa.nulls(n, field.type)
        return pa.array(["" if pa.types.is_string(field.type) else 0] * n, field.type)

    return pa.Table.from_arrays([column(field) for field in DESCRIPTIONS], schema=DESCRIPTIONS)


def _encode(kb: Path, model: str) -> None:
    from kb_builder.encode.embed import embed_texts

    embed_texts(kb, Encode(text=model))


def _localize(kb: Path) -> None:
    from trainer.localize.choose import localize
    from trainer.settings import Localize

    localize(kb, Localize())


def _score(kb: Path) -> None:
    from trainer.inputs import open_kb
    from trainer.localize.centers import load_centers
    from trainer.score.scoring import score

    score(unit(QUERIES, seed=8), load_centers(open_kb(kb)), top=5)


def _step(step: str, kb: Path) -> None:
    import torch  # noqa: F401  (imports are not part of a step)

    from kb_builder.encoders import load_encoder

    one_layer = str(kb.parent / "one-layer")
    model = "minilm" if step == "encode-minilm" else one_layer
    if step.startswith("encode"):
        load_encoder(model)
    with memory_rise() as rise:
        start = time.perf_counter()
        if step.startswith("encode"):
            _encode(kb, model)
        else:
            {"localize": _localize, "score": _score}[step](kb)
        seconds = time.perf_counter() - start
    print(json.dumps([seconds, rise.peak_mb, rise.mb]))


if __name__ == "__main__":
    _step(sys.argv[1], Path(sys.argv[2]))
