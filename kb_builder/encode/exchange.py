"""Import and export of vectors: matrices from other tools into the embedding store, and its tables out of it.

An export is a new folder with the exact bits of the stored vectors and the encoder's card (encoder.json):

    npy          vectors.npy [N, D], ids.txt and groups.txt (one line per row)
    safetensors  vectors.safetensors with the tensor `vectors` [N, D], ids.txt and groups.txt
    datasets     data/*.parquet and a README.md, for `datasets.load_dataset(FOLDER)`
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import save_file

from data.errors import InputError, KnowledgeBaseError, foreign_as
from data.files import atomic_path, new_folder
from data.reads import reading
from data.seals import seal
from data.tables.text_files import read_text
from kb_builder.encode.embed import TEXT_TABLES, encoder_folder, wanted_texts
from kb_builder.encode.rows import TEXT
from kb_builder.encoders.imported import PREFIX, ImportedVectors, find_imported
from kb_builder.store.cards import encoder_folders
from kb_builder.store.shards import Dtype, Floats, inspect_shard
from kb_builder.store.table import VectorTable, open_table, part_paths, read_manifest, write_vectors
from kb_builder.tables.schemas import read_columns

TABLES = (*TEXT_TABLES, "samples")
_ROWS_AT_A_TIME = 8192


def export_table(kb: Path, table: str, target: Path, *, form: str, role: str | None = None) -> int:
    """Write a table of vectors into the new folder `target`; returns the number of rows.

    `role` selects the encoder: text, samples or zero_shot; by default `samples` for the table `samples`, else
    `text`. Raises InputError if `target` exists, if the table or the format is unknown, if the role has no
    encoder and if the table is empty; and KnowledgeBaseError if nothing is encoded or a shard is damaged.
    """
    _require(table, TABLES, "table")
    _require(form, tuple(_WRITERS), "format")
    source = _folder_of(kb, role or ("samples" if table == "samples" else "text"))
    opened = open_table(source / table)
    if not len(opened):
        raise InputError(f"{source / table}: the table is empty, there is nothing to export")
    with new_folder(target) as folder:
        shutil.copyfile(reading(source / "encoder.json"), folder / "encoder.json")
        _WRITERS[form](opened, folder)
    return len(opened)


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import: `rows` in the table now, and rows of the knowledge base that are `missing`."""

    folder: Path
    imported: int
    rows: int
    missing: int

    def __str__(self) -> str:
        lacking = f"; {self.missing} rows of the knowledge base have no vector" if self.missing else ""
        return f"{self.imported} vectors imported, {self.rows} now in {self.folder}{lacking}"


def import_vectors(
    kb: Path, vectors: Path, ids: Path, *, table: str, name: str, dtype: Dtype = "float16"
) -> ImportSummary:
    """Import a matrix [N, D] (.npy) of another tool into the store, as the encoder `imported:NAME`.

    Line i of the text file `ids` names the owner of row i: a row_id, a sample_id, or the uri of a sample.
    Rows are scaled to unit length. They replace rows of the table with the same id; other rows stay. Raises
    InputError, and changes nothing, if a file cannot be read, if the files do not match each other or the
    knowledge base, and for a row that is zero or holds NaN or infinite values.
    """
    _require(table, TABLES, "table")
    x_ND, lines = _read_matrix(vectors), _read_lines(ids)
    if len(lines) != len(x_ND):
        raise InputError(
            f"{ids}: {len(lines):,} ids, but {vectors} has {len(x_ND):,} rows; give one id per row"
        )
    own = _rows_of(kb, table)
    places = _places(own, lines, ids, table)
    unit_ND = _scale_to_unit(x_ND, lines, vectors)
    known = _find_earlier_import(kb, name)
    dim = x_ND.shape[1]
    if known is not None and known.dim != dim:
        raise InputError(
            f"{vectors}: {dim} dimensions, but the vectors imported as {known.name!r} have {known.dim}"
        )
    modalities = frozenset(own["modality"].take(pa.array(places)).to_pylist())
    encoder = ImportedVectors(PREFIX + name, dim, modalities | (known.modalities if known else frozenset()))
    folder = encoder_folder(kb, encoder, dtype)
    rows = own.take(pa.array(places)).select(["id", "group", "content"])
    old, old_ND = _stored_rows(folder / table)
    stays = np.flatnonzero(~pc.is_in(old["id"], value_set=rows["id"].combine_chunks()).to_numpy())
    rows = pa.concat_tables([rows, old.take(pa.array(stays, pa.int64()))])
    write_vectors(
        folder / table,
        ids=rows["id"].to_pylist(),
        groups=rows["group"].to_pylist(),
        contents=rows["content"].to_pylist(),
        vectors_ND=np.concatenate([unit_ND, old_ND.reshape(-1, dim)[stays]]),
        dtype=dtype,
        encoder=encoder.identity,
    )
    seal(kb, sorted(path for path in folder.rglob("*") if path.is_file()), f"import {name}")
    lacking = own.filter(pc.is_in(own["modality"], value_set=pa.array(sorted(modalities), TEXT)))
    there = pc.is_in(lacking["id"], value_set=rows["id"].combine_chunks())
    return ImportSummary(folder / table, len(lines), len(rows), len(lacking) - pc.sum(there).as_py())


def _require(given: str, known: tuple[str, ...], what: str) -> None:
    if given not in known:
        raise InputError(f"unknown {what} {given!r}; use one of {', '.join(known)}")


def _folder_of(kb: Path, role: str) -> Path:
    serving = {encoder.role: encoder.folder for encoder in encoder_folders(kb) if encoder.role}
    if not serving:
        raise KnowledgeBaseError(f"{kb}: nothing is encoded yet; run `unibind encode`")
    if role not in serving:
        raise InputError(
            f"no encoder has the role {role!r}; the roles in use are {', '.join(sorted(serving))}"
        )
    return kb / "embeddings" / serving[role]


def _stored(table: VectorTable) -> Iterator[npt.NDArray[Any]]:
    """The vectors as stored, shard by shard, every byte checked."""
    for shard in table.shards:
        held = inspect_shard(table.folder / shard.name)
        if held.shard != shard:
            raise KnowledgeBaseError(
                f"{table.folder / shard.name}: not the file that the manifest lists; run `unibind encode`"
            )
        yield held.stored_ND


def _write_npy(table: VectorTable, folder: Path) -> None:
    shape = (len(table), table.dim)
    out_ND = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=table.dtype, shape=shape)
    start = 0
    for block_ND in _stored(table):
        out_ND[start : start + len(block_ND)] = block_ND
        start += len(block_ND)
    _write_names(table, folder)


def _write_safetensors(table: VectorTable, folder: Path) -> None:
    with atomic_path(folder / "vectors.safetensors") as temporary:
        save_file({"vectors": np.concatenate(list(_stored(table)))}, temporary)
    _write_names(table, folder)


def _write_names(table: VectorTable, folder: Path) -> None:
    for name, column in zip(("ids", "groups"), table.read_names(), strict=True):
        (folder / f"{name}.txt").write_text("".join(f"{value}\n" for value in column.to_pylist()), "utf-8")


def _write_datasets(table: VectorTable, folder: Path) -> None:
    (folder / "data").mkdir()
    for number, _ in enumerate(_stored(table)):
        shutil.copyfile(table.folder / table.shards[number].name, folder / "data" / f"{number:05d}.parquet")
    card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n\n"
        f"{len(table):,} unit vectors of {table.dim} dimensions by {card['name']} (licence of the weights:"
        f" {card['licence']}),\nwith the columns id, group, content (SHA-256 of what each was made from) and"
        " vector.\n",
        encoding="utf-8",
    )


_WRITERS: dict[str, Callable[[VectorTable, Path], None]] = {
    "npy": _write_npy,
    "safetensors": _write_safetensors,
    "datasets": _write_datasets,
}


def _read_matrix(path: Path) -> npt.NDArray[np.floating]:
    with foreign_as(InputError, f"{path}: cannot be read as .npy"):
        x_ND = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(x_ND, np.ndarray) or x_ND.ndim != 2 or x_ND.dtype.kind != "f" or x_ND.size == 0:
        found = getattr(x_ND, "dtype", "several arrays"), getattr(x_ND, "shape", "")
        raise InputError(f"{path}: expected a matrix of floats [rows, dimensions], found {found}")
    offset: int = getattr(x_ND, "offset", 0)
    if path.stat().st_size > offset + x_ND.nbytes:
        raise InputError(f"{path}: holds more than one array, of which the first alone would be read")
    return x_ND


def _scale_to_unit(x_ND: npt.NDArray[np.floating], lines: list[str], path: Path) -> Floats:
    unit_ND = np.empty(x_ND.shape, np.float32)
    for start in range(0, len(x_ND), _ROWS_AT_A_TIME):
        block_ND = x_ND[start : start + _ROWS_AT_A_TIME].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths_N1 = np.linalg.norm(block_ND, axis=1, keepdims=True)
        good_N = np.isfinite(lengths_N1[:, 0]) & (lengths_N1[:, 0] > 0)
        if not good_N.all():
            row = start + int(np.argmin(good_N))
            raise InputError(f"{path}: row {row} ({lines[row]}) is zero or holds NaN or infinite values")
        unit_ND[start : start + len(block_ND)] = block_ND / lengths_N1
    return unit_ND


def _read_lines(path: Path) -> list[str]:
    return [line for line in read_text(path, InputError).split("\n") if line.strip()]


def _rows_of(kb: Path, table: str) -> pa.Table:
    """The rows that may have a vector in a table: id, uri (of a sample), group, content and modality."""
    if table == "samples":
        names = ["sample_id", "uri", "modality", "sha256"]
        rows = read_columns(kb / "samples.parquet", names, hint="unibind ingest")
        columns = [rows["sample_id"], rows["uri"], rows["modality"], rows["sha256"], rows["modality"]]
    else:
        pieces = list(wanted_texts(kb, table))
        ids, groups = (
            pa.chunked_array([getattr(piece, name) for piece in pieces], TEXT) for name in ("ids", "groups")
        )
        contents = pa.chunked_array([pa.array(piece.hexes(), TEXT) for piece in pieces], TEXT)
        text = pa.array(["text"] * len(ids), TEXT)
        columns = [ids, ids, groups, contents, text]
    return _large(dict(zip(("id", "uri", "group", "content", "modality"), columns, strict=True)))


def _large(columns: dict[str, Any]) -> pa.Table:
    """Columns of texts as a table whose tables can be joined beyond 2 GiB."""
    return pa.table({name: column.cast(TEXT) for name, column in columns.items()})


def _places(own: pa.Table, lines: list[str], ids: Path, table: str) -> list[int]:
    """The row of `own` that each line names, by id or by uri."""
    if len(set(lines)) != len(lines):
        duplicate = Counter(lines).most_common(1)[0][0]
        raise InputError(f"{ids}: duplicate id {duplicate!r}")
    given = pa.array(lines, TEXT)
    by_id, by_uri = (pc.index_in(given, value_set=own[key].combine_chunks()) for key in ("id", "uri"))
    places = pc.coalesce(by_id, by_uri)
    if places.null_count:
        line = int(np.argmax(places.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(
            f"{ids}: {places.null_count:,} of {len(lines):,} ids are not in {table} of this knowledge base;"
            f" the first is line {line + 1}, {lines[line]!r}"
        )
    found: list[int] = places.to_pylist()
    if len(set(found)) != len(found):
        raise InputError(f"{ids}: one sample is named both by its id and by its uri; keep one of them")
    return found


def _find_earlier_import(kb: Path, name: str) -> ImportedVectors | None:
    """The encoder of an earlier import under this name, if there is one."""
    try:
        return find_imported(kb, PREFIX + name)
    except InputError:
        return None


def _stored_rows(folder: Path) -> tuple[pa.Table, Floats]:
    """All rows of a table and their vectors; none if the table does not exist yet."""
    names = ("id", "group", "content")
    if read_manifest(folder) is None:
        return _large({name: pa.array([], TEXT) for name in names}), np.zeros((0, 0), np.float32)
    tables, blocks = [], []
    for path in part_paths(folder):
        held = inspect_shard(path)
        columns = (held.ids, held.groups, held.contents)
        tables.append(_large(dict(zip(names, columns, strict=True))))
        blocks.append(held.stored_ND.astype(np.float32))
    return pa.concat_tables(tables), np.concatenate(blocks)
