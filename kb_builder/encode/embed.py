"""Encode stage: turn descriptions, controls and samples into vectors, resumably and bit for bit.

    <kb>/embeddings/
      encoders.json                              the folder of the text, the samples and the zero_shot encoder
      <encoder>-<identity[:12]>-<dtype>/
        encoder.json                             the card: name, identity, dim, dtype, modalities, licence, …
        rate-*.json                              with `part_seconds`: kb_builder/encode/rates.py
        category_texts/                          id = row_id, group = category_id
        sample_texts/                            id = row_id, group = modality
        controls/                                id = row_id, group = category_id
        samples/                                 id = sample_id, group = modality

The last four are tables (kb_builder/store/table.py). kb_builder/encode/parts.py explains how their shards are
made, reused and reproduced bit for bit.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError, KnowledgeBaseError, SampleError
from data.files import write_json
from data.paths import resolver
from data.reads import names as names_in
from data.reads import reading
from data.seals import unseal
from data.show import visible
from kb_builder.encode.parts import encode_parts
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.planned_rows import forget_plans
from kb_builder.encode.rates import TEXTS, RateWork, rows_by_seconds
from kb_builder.encode.rows import TEXT, StoredTexts, WantedVectors, hash_texts
from kb_builder.encode.spread import Spread
from kb_builder.encoders import FACTORIES, Encoder, Loader, load_encoder
from kb_builder.encoders.base import JOIN
from kb_builder.encoders.imported import PREFIX, find_imported
from kb_builder.settings import Encode
from kb_builder.store.cards import assign_roles
from kb_builder.store.shards import Dtype
from kb_builder.tables.schemas import REJECTS, SAMPLES, column_batches, read_columns, write_table

_TEXT_ROWS = pa.schema([("row_id", TEXT), ("group", TEXT), ("text", TEXT)])

# Tables of texts: their place in the knowledge base, and the column that becomes `group`.
TEXT_TABLES = {
    "category_texts": ("descriptions/category", "category_id"),
    "sample_texts": ("descriptions/sample", "modality"),
    "controls": ("controls.parquet", "category_id"),
}


def embed_texts(kb: Path, settings: Encode, spread: Spread | None = None) -> dict[str, float]:
    """Encode the `ok` descriptions and the controls with the text encoder.

    `spread` says where parts are made; with a share, nothing but its parts is written. Returns the `Counts`
    of the run by name, and the encoder's `agreement` if it states one. Raises KnowledgeBaseError if there are
    categories without any description, and InputError if the encoder takes no texts.
    """
    spread = spread or Spread()
    load = _loader(kb, settings.text, settings)
    encoder = load()
    if "text" not in encoder.modalities:
        raise InputError(f"[encode] text = {settings.text!r} takes no texts; use e.g. 'minilm'")
    folder = _ready_folder(kb, encoder, settings.dtype, ["text"], spread)
    categories = kb / "descriptions" / "category"
    if not names_in(categories, "*.parquet") and _names_categories(kb):
        raise KnowledgeBaseError(f"{categories}: no category descriptions; run `unibind describe` first")

    def wanted() -> dict[str, Iterator[WantedVectors]]:
        return {table: wanted_texts(kb, table) for table in TEXT_TABLES}

    size: int = settings.texts_per_part
    if settings.part_seconds is not None:
        rows = _rows_by_seconds(
            folder, {TEXTS}, lambda: chain(*wanted().values()), encoder, load, settings, spread
        )
        size = rows.get(TEXTS, size)
    with plan_parts(folder, wanted(), identity=encoder.identity, rows_per_part=size) as plan:
        result = encode_parts(plan, encoder, settings, what="texts", spread=spread, load=load)
    _tell(result.notes)
    counts = asdict(result.counts)
    agreement = _agreement(encoder)
    return counts if agreement is None else counts | {"agreement": round(agreement, 6)}


def _rows_by_seconds(
    folder: Path,
    kinds: Set[str],
    wanted: Callable[[], Iterable[WantedVectors]],
    encoder: Encoder,
    load: Callable[[], Encoder],
    settings: Encode,
    spread: Spread,
) -> dict[str, int]:
    """`rows_by_seconds`, told."""
    loaded = load if spread.elsewhere else lambda: encoder
    work = RateWork(loaded, encoder.identity, settings, spread.budget)
    rows, told = rows_by_seconds(folder, kinds, wanted, work, spread.map)
    _tell([f"{folder.name}: {told}"])
    return rows


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"  note: {visible(note)}", file=sys.stderr, flush=True)


def _ready_folder(kb: Path, encoder: Encoder, dtype: Dtype, roles: list[str], spread: Spread) -> Path:
    """The encoder's folder, with its card and roles written; for a share of the parts nothing is written."""
    if spread.share is not None:
        return _folder(kb, encoder, dtype)
    folder = encoder_folder(kb, encoder, dtype)
    forget_plans(folder)
    assign_roles(kb, dict.fromkeys(roles, folder.name))
    return folder


def _names_categories(kb: Path) -> bool:
    """Whether there are categories to describe; there are none if no sample has one."""
    path = kb / "categories.parquet"
    return not path.is_file() or read_columns(path, ["category_id"], hint="unibind describe").num_rows > 0


def embed_samples(
    kb: Path, data_root: Path, settings: Encode, spread: Spread | None = None
) -> dict[str, int]:
    """Encode every accepted sample: texts with the text encoder, all others with the samples encoder, and
    those of the zero-shot encoder's modalities with that one as well.

    `data_root` is the manifest's folder, `spread` as in `embed_texts`. A sample that cannot be read gets no
    vector, and a row in rejects/encode.parquet. Returns the `Counts` summed over the encoders, with the
    number of `quarantined` samples. Raises InputError if an encoder does not take a modality of its role.
    """
    present = frozenset(_modalities(kb / "samples.parquet"))
    spread = spread or Spread()
    if settings.zero_shot is None and spread.share is None:
        assign_roles(kb, {"zero_shot": None})
    reasons: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, roles in _by_encoder(settings).items():
        # One at a time: the next encoder is loaded after this one is released.
        load = _loader(kb, name, settings)
        encoder = load()
        _check_takes(encoder, roles, present, settings)
        folder = _ready_folder(kb, encoder, settings.dtype, roles, spread)
        asked = {each for role in roles for each in present if (each == "text") == (role == "text")}
        wanted = partial(
            _wanted_samples, kb / "samples.parquet", data_root, asked & encoder.modalities, reasons
        )
        size: int | dict[str, int] = settings.samples_per_part
        if settings.part_seconds is not None:
            taken = asked & encoder.modalities
            size = _rows_by_seconds(folder, taken, wanted, encoder, load, settings, spread)
        with plan_parts(folder, {"samples": wanted()}, identity=encoder.identity, rows_per_part=size) as plan:
            result = encode_parts(plan, encoder, settings, what="samples", spread=spread, load=load)
        _tell(result.notes)
        counts.update(asdict(result.counts))
        reasons |= result.reasons
        del encoder
    rejects = [{"sample_id": key, "stage": "encode", "reason": reasons[key]} for key in sorted(reasons)]
    if spread.share is None:
        write_table(kb / "rejects" / "encode.parquet", rejects, REJECTS)
    return dict(counts) | {"quarantined": len(rejects)}


def _modalities(path: Path) -> set[str]:
    """The modalities of the accepted samples; none if there is no file."""
    return {
        name
        for file in _files(path)
        for rows in column_batches(file, ["modality"], hint="unibind describe")
        for name in pc.unique(rows["modality"]).to_pylist()
    }


def _loader(kb: Path, name: str, settings: Encode) -> Callable[[], Encoder]:
    """A function that loads an encoder in any process."""
    if name.startswith(PREFIX):
        return partial(find_imported, kb, name)
    return partial(load_known, name, settings.device, dict(FACTORIES))


def load_known(name: str, device: str, families: Mapping[str, str | Loader]) -> Encoder:
    """Load an encoder where the families of the process that planned may not be known: a user's own."""
    for family, loader in families.items():
        FACTORIES.setdefault(family, loader)
    return load_encoder(name, device)


def encoder_names(settings: Encode) -> tuple[str, ...]:
    """The names, for `load_encoder`, of the encoders that are run; imported vectors need none."""
    return tuple(name for name in _by_encoder(settings) if not name.startswith(PREFIX))


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
    path: Path, data_root: Path, modalities: Collection[str], reasons: dict[str, str]
) -> Iterator[WantedVectors]:
    """The samples to encode; adds to `reasons`, by sample id, why a file was not found."""
    find = resolver(data_root)
    up = SAMPLES.field("up")
    columns = ["sample_id", "modality", "sha256", "uri"]
    for file in _files(path):
        for some in column_batches(file, columns, hint="unibind describe", optional=[up]):
            rows: list[tuple[str | None, ...]] = []
            for sample in some.to_pylist():
                if sample["modality"] not in modalities:
                    continue
                try:
                    source = str(find(sample["uri"]))
                except SampleError as error:
                    reasons[sample["sample_id"]] = str(error)
                    continue
                rows.append((*(sample[name] for name in columns), source, sample["up"]))
            ids, groups, contents, labels, sources, ups = (
                pa.array([row[at] for row in rows], TEXT) for at in range(6)
            )
            yield WantedVectors(ids, groups, contents, sources, files=True, labels=labels, ups=ups)


def wanted_texts(kb: Path, table: str) -> Iterator[WantedVectors]:
    """The texts whose vectors a table should hold; of descriptions, those with status `ok`."""
    where, group = TEXT_TABLES[table]
    path = kb / where
    only_ok = path.is_dir()
    columns = ["row_id", group, "text", *["status"] * only_ok]
    for file in _files(path):
        count = 0
        for rows in column_batches(file, columns, hint="unibind describe"):
            ok = np.asarray(pc.equal(rows["status"], "ok")) if only_ok else np.ones(len(rows), np.bool_)
            places = np.flatnonzero(ok)
            own = rows.select(["row_id", group, "text"]).rename_columns(_TEXT_ROWS.names).cast(_TEXT_ROWS)
            own = own.take(pa.array(places)).combine_chunks()
            ids, groups, texts = (own[name].combine_chunks() for name in _TEXT_ROWS.names)
            held = StoredTexts([file], np.zeros(len(places), np.int32), places + count)
            yield WantedVectors(ids, pc.fill_null(groups, ""), hash_texts(texts), held)
            count += len(rows)


def _files(path: Path) -> list[Path]:
    """A Parquet file, or all in a folder in name order; none if it does not exist, which is noted as read."""
    if path.suffix == ".parquet":
        return [path] if path.exists() else [reading(path)][:0]
    return names_in(path, "*.parquet")


def encoder_folder(kb: Path, encoder: Encoder, dtype: Dtype) -> Path:
    """Make the encoder's folder in the store ready for writing: its card is written; returns the folder."""
    folder = _folder(kb, encoder, dtype)
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


def _folder(kb: Path, encoder: Encoder, dtype: Dtype) -> Path:
    name = Path(encoder.name).name if Path(encoder.name).is_dir() else encoder.name
    plain_name = re.sub(r"[^\w.-]+", "-", name)
    return kb / "embeddings" / f"{plain_name}-{encoder.identity[:12]}-{dtype}"


def _agreement(encoder: Encoder) -> float | None:
    """The least cosine to the published model, if the encoder runs that model in another way."""
    agreement: float | None = getattr(encoder, "agreement", None)
    return agreement
