"""Encode stage: turn descriptions, controls and samples into vectors, resumably and bit for bit.

    <kb>/embeddings/
      encoders.json                              the folder of the text, the samples and the zero_shot encoder
      <encoder>-<identity[:12]>-<dtype>/
        encoder.json                             the card: name, identity, dim, dtype, modalities, licence, …
        category_texts/                          id = row_id, group = category_id
        sample_texts/                            id = row_id, group = modality
        controls/                                id = row_id, group = category_id
        samples/                                 id = sample_id, group = modality

The last four are tables (kb_builder/store/table.py). kb_builder/encode/parts.py explains how their shards are
made, reused and reproduced bit for bit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError, SampleError
from data.files import hash_text, write_json
from data.paths import resolver
from data.reads import names as names_in
from data.reads import reading
from data.seals import unseal
from kb_builder.encode.parts import encode_parts
from kb_builder.encode.plan import WantedVectors, plan_parts
from kb_builder.encoders import Encoder, load_encoder
from kb_builder.encoders.base import JOIN
from kb_builder.encoders.imported import PREFIX, find_imported
from kb_builder.settings import Encode
from kb_builder.store.cards import assign_roles
from kb_builder.store.shards import Dtype
from kb_builder.tables.schemas import REJECTS, SAMPLES, read_columns, write_table

# Rows per part, the most work that a killed run loses: some tens of seconds of encoding on two cores.
TEXTS_PER_PART = 4096
SAMPLES_PER_PART = 512
_TEXTS_AT_A_TIME = 10_000  # held as Python strings; all texts are held in Arrow's form

# Tables of texts: their place in the knowledge base, and the column that becomes `group`.
TEXT_TABLES = {
    "category_texts": ("descriptions/category", "category_id"),
    "sample_texts": ("descriptions/sample", "modality"),
    "controls": ("controls.parquet", "category_id"),
}


def embed_texts(kb: Path, settings: Encode) -> dict[str, float]:
    """Encode the `ok` descriptions and the controls with the text encoder.

    Returns the `Counts` of the run by name, and the encoder's `agreement` if it states one. Raises
    KnowledgeBaseError if there are categories without any description, and InputError if the encoder takes
    no texts.
    """
    encoder = _load(kb, settings.text, settings)
    if "text" not in encoder.modalities:
        raise InputError(f"[encode] text = {settings.text!r} takes no texts; use e.g. 'minilm'")
    folder = encoder_folder(kb, encoder, settings.dtype)
    assign_roles(kb, {"text": folder.name})
    categories = kb / "descriptions" / "category"
    if not names_in(categories, "*.parquet") and _names_categories(kb):
        raise KnowledgeBaseError(f"{categories}: no category descriptions; run `unibind describe` first")
    plan = plan_parts(
        folder,
        {table: wanted_texts(kb, table) for table in TEXT_TABLES},
        identity=encoder.identity,
        rows_per_part=TEXTS_PER_PART,
    )
    counts = asdict(encode_parts(plan, encoder, settings, what="texts").counts)
    agreement = _agreement(encoder)
    return counts if agreement is None else counts | {"agreement": round(agreement, 6)}


def _names_categories(kb: Path) -> bool:
    """Whether there are categories to describe; there are none if no sample has one."""
    path = kb / "categories.parquet"
    return not path.is_file() or read_columns(path, ["category_id"], hint="unibind describe").num_rows > 0


def embed_samples(kb: Path, data_root: Path, settings: Encode) -> dict[str, int]:
    """Encode every accepted sample: texts with the text encoder, all others with the samples encoder, and
    those of the zero-shot encoder's modalities with that one as well.

    `data_root` is the manifest's folder. A sample that cannot be read gets no vector, and a row in
    rejects/encode.parquet. Returns the `Counts` summed over the encoders, with the number of `quarantined`
    samples. Raises InputError if an encoder does not take a modality of its role.
    """
    columns = ["sample_id", "modality", "uri", "sha256"]
    samples = _columns(kb / "samples.parquet", columns, optional=[SAMPLES.field("up")]).to_pylist()
    present = frozenset(row["modality"] for row in samples)
    if settings.zero_shot is None:
        assign_roles(kb, {"zero_shot": None})
    reasons: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, roles in _by_encoder(settings).items():
        # One at a time: the next encoder is loaded after this one is released.
        encoder = _load(kb, name, settings)
        _check_takes(encoder, roles, present, settings)
        folder = encoder_folder(kb, encoder, settings.dtype)
        assign_roles(kb, dict.fromkeys(roles, folder.name))
        asked = {each for role in roles for each in present if (each == "text") == (role == "text")}
        wanted, unlocated = _wanted_samples(samples, data_root, asked & encoder.modalities)
        plan = plan_parts(
            folder, {"samples": wanted}, identity=encoder.identity, rows_per_part=SAMPLES_PER_PART
        )
        result = encode_parts(plan, encoder, settings, what="samples")
        counts.update(asdict(result.counts))
        reasons |= unlocated | result.reasons
        del encoder
    rejects = [{"sample_id": key, "stage": "encode", "reason": reasons[key]} for key in sorted(reasons)]
    write_table(kb / "rejects" / "encode.parquet", rejects, REJECTS)
    return dict(counts) | {"quarantined": len(rejects)}


def _load(kb: Path, name: str, settings: Encode) -> Encoder:
    return find_imported(kb, name) if name.startswith(PREFIX) else load_encoder(name, settings.device)


def _by_encoder(settings: Encode) -> dict[str, list[str]]:
    """The roles of each encoder, by its name; `samples`, which can refuse a modality, comes first."""
    names = {"samples": settings.samples, "zero_shot": _zero_shot_name(settings), "text": settings.text}
    roles: dict[str, list[str]] = {}
    for role, name in names.items():
        if name is not None:
            roles.setdefault(name, []).append(role)
    return roles


def _check_takes(encoder: Encoder, roles: list[str], present: frozenset[str], settings: Encode) -> None:
    untaken = sorted(present - {"text"} - encoder.modalities)
    if "samples" in roles and untaken:
        raise InputError(
            f"[encode] samples = {settings.samples!r} does not take {', '.join(untaken)};"
            " use 'efficientnet-lite0' or a CLIP-like model such as 'clip:FOLDER'"
        )
    if "text" in roles and "text" not in encoder.modalities:
        raise InputError(f"[encode] text = {settings.text!r} takes no texts; use e.g. 'minilm'")


def _zero_shot_name(settings: Encode) -> str | None:
    """The name, for `load_encoder`, of a zero-shot encoder in the text encoder's space; None if it is off."""
    over_text = "conse" if settings.text == "minilm" else f"conse:{settings.text}"
    if settings.zero_shot == "conse":
        return over_text
    if settings.zero_shot in {None, settings.text, over_text}:
        return settings.zero_shot
    if settings.zero_shot.startswith(settings.text + JOIN):
        return settings.zero_shot
    raise InputError(
        f"[encode] zero_shot = {settings.zero_shot!r} does not share the space of text = {settings.text!r};"
        " use 'conse', or one CLIP-like model for both"
    )


def _wanted_samples(
    samples: list[dict[str, Any]], data_root: Path, modalities: Collection[str]
) -> tuple[WantedVectors, dict[str, str]]:
    """The samples to encode, and by sample id the reason why a file was not found."""
    find = resolver(data_root)
    rows: list[tuple[str | None, ...]] = []
    reasons: dict[str, str] = {}
    for sample in samples:
        if sample["modality"] not in modalities:
            continue
        try:
            path = find(sample["uri"])
        except SampleError as error:
            reasons[sample["sample_id"]] = str(error)
            continue
        about = (sample[name] for name in ("sample_id", "modality", "sha256"))
        rows.append((*about, str(path), sample["uri"], sample["up"]))
    ids, groups, contents, sources, labels, ups = (
        pa.array([row[at] for row in rows], pa.string()) for at in range(6)
    )
    return WantedVectors(ids, groups, contents, sources, files=True, labels=labels, ups=ups), reasons


def wanted_texts(kb: Path, table: str) -> WantedVectors:
    """The texts whose vectors a table should hold; of descriptions, those with status `ok`."""
    where, group = TEXT_TABLES[table]
    path = kb / where
    rows = _columns(path, ["row_id", group, "text"], only_ok=path.is_dir())
    ids, groups, texts = (pa.concat_arrays(rows[name].chunks) for name in rows.column_names)
    contents = [pa.array([], pa.string())]
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        some = texts.slice(start, _TEXTS_AT_A_TIME).to_pylist()
        contents.append(pa.array(map(hash_text, some), pa.string()))
    return WantedVectors(ids, pc.fill_null(groups, ""), pa.concat_arrays(contents), texts)


def _columns(
    path: Path, names: list[str], *, only_ok: bool = False, optional: Sequence[pa.Field] = ()
) -> pa.Table:
    """String columns of a Parquet file, or of all in a folder in name order; no rows if there is no file."""
    if path.suffix == ".parquet":
        files = [path] if path.exists() else [reading(path)][:0]  # its absence is noted as read
    else:
        files = names_in(path, "*.parquet")
    every = [*names, *(field.name for field in optional)]
    tables = [pa.schema([(name, pa.string()) for name in every]).empty_table()]
    for file in files:
        wanted = [*names, "status"] if only_ok else names
        table = read_columns(file, wanted, hint="unibind describe", optional=optional)
        if only_ok:
            table = table.filter(pc.equal(table["status"], "ok"))
        tables.append(table.select(every).cast(tables[0].schema))
    return pa.concat_tables(tables).combine_chunks()


def encoder_folder(kb: Path, encoder: Encoder, dtype: Dtype) -> Path:
    """Make the encoder's folder in the store ready for writing: its card is written; returns the folder."""
    plain_name = re.sub(
        r"[^\w.-]+", "-", Path(encoder.name).name if Path(encoder.name).is_dir() else encoder.name
    )
    folder = kb / "embeddings" / f"{plain_name}-{encoder.identity[:12]}-{dtype}"
    card = {
        "name": encoder.name,
        "identity": encoder.identity,
        "dim": encoder.dim,
        "dtype": dtype,
        "modalities": sorted(encoder.modalities),
        "licence": encoder.licence,
        "parameters": encoder.parameters,
        "agreement": _agreement(encoder),
    }
    unseal(kb, below=folder.relative_to(kb).as_posix())
    write_json(folder / "encoder.json", card)
    return folder


def _agreement(encoder: Encoder) -> float | None:
    """The least cosine to the published model, if the encoder runs that model in another way."""
    agreement: float | None = getattr(encoder, "agreement", None)
    return agreement
