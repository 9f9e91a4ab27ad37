"""Descriptions, controls and samples become vectors in the embedding store: resumable, bit for bit.

    <kb>/embeddings/
      encoders.json                              which folder serves as text, samples and zero_shot encoder
      <encoder>-<identity[:12]>/
        encoder.json                             its name, identity, dimension, modalities, licence
        category_texts/part-NNNNN.parquet        id = row_id, group = category_id
        sample_texts/part-NNNNN.parquet          id = row_id, group = modality
        controls/part-NNNNN.parquet              id = row_id, group = category_id
        samples/part-NNNNN.parquet               id = sample_id, group = modality

kb_builder/encode_parts.py says how parts are planned, made, recognised and repeated bit for bit.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import InputError, KnowledgeBaseError, SampleError
from data.files import write_json
from data.paths import resolver
from kb_builder.encode_parts import Row, encode_parts, plan_parts
from kb_builder.encoders import Encoder, load_encoder
from kb_builder.schemas import REJECTS, write_table
from kb_builder.settings import Encode

# Rows per part: what a kill can cost at most, some tens of seconds of encoding on two cores.
TEXTS_PER_PART = 4096
SAMPLES_PER_PART = 512


def embed_texts(kb: Path, settings: Encode) -> dict[str, int]:
    """Encode the `ok` descriptions and the controls with the text encoder.

    Returns how many distinct texts there are (`distinct`), how many were `encoded` now, and how many rows
    were `reused` from finished parts. Raises KnowledgeBaseError where there are no category descriptions.
    """
    encoder = load_encoder(settings.text)
    if "text" not in encoder.modalities:
        raise InputError(f"[encode] text = {settings.text!r} takes no texts; use e.g. 'minilm'")
    folder = _open_folder(kb, encoder)
    _remember(kb, {"text": folder.name})
    categories = kb / "descriptions" / "category"
    if not any(categories.glob("*.parquet")):
        raise KnowledgeBaseError(f"{categories}: no category descriptions; run `unibind describe` first")
    tables = {
        "category_texts": _text_rows(categories, group="category_id"),
        "sample_texts": _text_rows(kb / "descriptions" / "sample", group="modality"),
        "controls": _text_rows(kb / "controls.parquet", group="category_id"),
    }
    parts = plan_parts(folder, tables, identity=encoder.identity, rows_per_part=TEXTS_PER_PART)
    return asdict(encode_parts(parts, encoder, batch_size=settings.batch_size, what="texts").counts)


def embed_samples(kb: Path, data_root: Path, settings: Encode) -> dict[str, int]:
    """Encode every accepted sample: texts by the text encoder, all others by the samples encoder, and those
    that the zero-shot encoder covers by that one as well.

    `data_root` is the manifest's folder. A sample that cannot be read gets no vector and a row in
    rejects/encode.parquet. Returns the counts of `embed_texts`, summed over the encoders, and how many
    samples were `quarantined`. Raises InputError where an encoder does not take what it is asked to.
    """
    samples = _columns(kb / "samples.parquet", ["sample_id", "modality", "uri", "sha256"])
    present = frozenset(row["modality"] for row in samples)
    roles = _load_roles(settings, present)
    _remember(
        kb, {role: _open_folder(kb, encoder).name if encoder else None for role, encoder in roles.items()}
    )
    rows, reasons = _sample_rows(samples, data_root)
    counts: Counter[str] = Counter()
    for encoder, modalities in _assign(roles, present):
        parts = plan_parts(
            _open_folder(kb, encoder),
            {"samples": [row for row in rows if row.modality in modalities]},
            identity=encoder.identity,
            rows_per_part=SAMPLES_PER_PART,
        )
        result = encode_parts(parts, encoder, batch_size=settings.batch_size, what="samples")
        counts.update(asdict(result.counts))
        reasons |= result.reasons
    rejects = [{"sample_id": key, "stage": "encode", "reason": reasons[key]} for key in sorted(reasons)]
    write_table(kb / "rejects" / "encode.parquet", rejects, REJECTS)
    return dict(counts) | {"quarantined": len(rejects)}


def _load_roles(settings: Encode, present: frozenset[str]) -> dict[str, Encoder | None]:
    samples = load_encoder(settings.samples)
    untaken = sorted(present - {"text"} - samples.modalities)
    if untaken:
        raise InputError(
            f"[encode] samples = {settings.samples!r} does not take {', '.join(untaken)};"
            " use 'efficientnet-lite0' or a CLIP-like sentence-transformers model"
        )
    zero_shot = _zero_shot_name(settings)
    return {
        "text": load_encoder(settings.text),
        "samples": samples,
        "zero_shot": None if zero_shot is None else load_encoder(zero_shot),
    }


def _zero_shot_name(settings: Encode) -> str | None:
    """The zero-shot encoder whose space is the text encoder's, by the name that `load_encoder` knows."""
    over_text = "conse" if settings.text == "minilm" else f"conse:{settings.text}"
    if settings.zero_shot == "conse":
        return over_text
    if settings.zero_shot in {None, settings.text, over_text}:
        return settings.zero_shot
    raise InputError(
        f"[encode] zero_shot = {settings.zero_shot!r} does not share the space of text = {settings.text!r};"
        " use 'conse', or one CLIP-like model for both"
    )


def _assign(roles: Mapping[str, Encoder | None], present: frozenset[str]) -> list[tuple[Encoder, set[str]]]:
    """Which encoder takes which modalities. One that serves in several roles comes once."""
    wanted = {
        "text": {"text"},
        "samples": set(present - {"text"}),
        "zero_shot": set(present - {"text"}),
    }
    assigned: dict[str, tuple[Encoder, set[str]]] = {}
    for role, encoder in roles.items():
        if encoder is not None:
            _, modalities = assigned.setdefault(encoder.identity, (encoder, set()))
            modalities |= wanted[role] & encoder.modalities
    return list(assigned.values())


def _sample_rows(samples: list[dict[str, Any]], data_root: Path) -> tuple[list[Row], dict[str, str]]:
    """The rows to encode, and by sample id why some have none."""
    find = resolver(data_root)
    rows: list[Row] = []
    reasons: dict[str, str] = {}
    for sample in samples:
        modality = sample["modality"]
        try:
            path = find(sample["uri"])
        except SampleError as error:
            reasons[sample["sample_id"]] = str(error)
            continue
        content = f"{modality}:{sample['sha256']}"
        rows.append(Row(sample["sample_id"], modality, modality, path, content, label=sample["uri"]))
    return rows, reasons


def _text_rows(path: Path, *, group: str) -> list[Row]:
    """The texts of a table or a folder of tables; of descriptions, those with status `ok`."""
    rows = _columns(path, ["row_id", group, "text"], only_ok=path.is_dir())
    return [Row(row["row_id"], row[group] or "", "text", row["text"], row["text"]) for row in rows]


def _columns(path: Path, names: list[str], *, only_ok: bool = False) -> list[dict[str, Any]]:
    """Some columns of a Parquet file or of a folder's, in name order; none where there is no file."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.exists() else []
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            table = pq.ParquetFile(file).read(columns=[*names, "status"] if only_ok else names)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise KnowledgeBaseError(f"{file}: damaged ({reason}); delete it and run again") from error
        if only_ok:
            table = table.filter(pc.equal(table["status"], "ok"))
        rows += table.select(names).to_pylist()
    return rows


def _open_folder(kb: Path, encoder: Encoder) -> Path:
    """The encoder's folder in the store, with its encoder.json."""
    plain_name = re.sub(
        r"[^\w.-]+", "-", Path(encoder.name).name if Path(encoder.name).is_dir() else encoder.name
    )
    folder = kb / "embeddings" / f"{plain_name}-{encoder.identity[:12]}"
    card = {
        "name": encoder.name,
        "identity": encoder.identity,
        "dim": encoder.dim,
        "modalities": sorted(encoder.modalities),
        "licence": encoder.licence,
        "parameters": encoder.parameters,
    }
    write_json(folder / "encoder.json", card)
    return folder


def _remember(kb: Path, folders: Mapping[str, str | None]) -> None:
    """Say in encoders.json which folder serves in which role, leaving other roles as they are."""
    path = kb / "embeddings" / "encoders.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**known, **folders})
