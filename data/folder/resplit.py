"""Draws splits for a manifest, object by object, and writes them into it; other cells stay unchanged."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ManifestError
from data.files import atomic_path
from data.folder.dataset import split_units
from data.folder.objects import MediaFile, group_files
from data.manifest.read import COLUMNS, Manifest, manifest_rows, read_manifest
from data.modality import Modality
from data.sample import Sample, Split
from data.splits import draw_splits
from data.tables.delimited import all_records
from data.tables.read import folded, known_spellings
from data.tables.text_files import encoding_of, read_text

COLUMN = "split"


@dataclass(frozen=True)
class Resplit:
    """The split of every sample, in the manifest's order, and notes on how samples were grouped."""

    samples: tuple[Sample, ...]
    splits: tuple[Split, ...]
    notes: tuple[str, ...]
    backup: Path


def resplit_manifest(
    path: Path,
    *,
    categories: Path | None = None,
    modality: Modality | None = None,
    root: Path | None = None,
    seed: int = 0,
    force: bool = False,
) -> Resplit:
    """Draw train, val and test for the samples of a manifest, and write them into its column `split`.

    All files of an object go together (`data.folder.objects`, and the manifest's own `object_id`), 60/20/20
    in each category. The old file is kept as NAME.before-split.ENDING; columns keep their order and form.
    Arguments as for `read_manifest`. Raises ManifestError where the manifest has splits, unless `force`.
    """
    if path.is_dir() or path.suffix.lower() == ".json":
        raise ManifestError(f"{path}: the official lists define their own splits; nothing to draw")
    manifest = read_manifest(path, categories=categories, modality=modality, root=root, splits=False)
    rows = manifest_rows(path)
    given = Counter(str(row.cells[COLUMN]) for row in rows if row.cells.get(COLUMN) is not None)
    if given and not force:
        counts = ", ".join(f"{count} {split}" for split, count in sorted(given.items()))
        raise ManifestError(
            f"{path} has splits ({counts}); to replace them, pass --force: the old file is kept"
        )
    splits, notes = _draw(manifest, seed)
    by_row = {row.where: split for row, split in zip(rows, splits, strict=True)}
    backup = _backup(path)
    copyfile(path, backup)
    _WRITERS.get(path.suffix.lower(), _write_delimited)(path, by_row)
    return Resplit(manifest.samples, splits, notes, backup)


def _draw(manifest: Manifest, seed: int) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    files = {
        sample.uri: MediaFile(sample.uri, sample.modality, sample.category_id) for sample in manifest.samples
    }
    known: dict[str, list[str]] = defaultdict(list)
    for sample in manifest.samples:
        if sample.object_id is not None:
            known[sample.object_id].append(sample.uri)
    groups = group_files(list(files.values()), manifest.root, known=known.values())
    drawn = draw_splits(split_units(files.values(), groups.key_of), seed=seed)
    return tuple(drawn[groups.key_of[sample.uri]] for sample in manifest.samples), groups.notes


def _backup(path: Path) -> Path:
    """An unused name for the backup, beside the file."""
    names = [f"{path.stem}.before-split{number}{path.suffix}" for number in ("", *map(str, range(2, 1000)))]
    return next(place for name in names if not (place := path.with_name(name)).exists())


def _write_delimited(path: Path, by_row: Mapping[str, Split]) -> None:
    """Write a CSV or TSV file, keeping its separator, encoding and line ends."""
    raw = path.read_bytes()
    encoding = encoding_of(raw)
    head, separator, records = all_records(
        read_text(path),
        lambda name: folded(name) in known_spellings(COLUMNS),
        ending=".csv" if path.suffix.lower() == ".csv" else ".tsv",
    )
    ends = "\r\n" if "\r\n" in raw.decode(encoding) else "\n"
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=ends)
    place: int | None = None
    for where, cells in records:
        if place is None and any(cell.strip() for cell in cells):  # the header
            names = [folded(name) for name in cells]
            if COLUMN not in names:
                cells.append(COLUMN)
            place = names.index(COLUMN) if COLUMN in names else len(names)
        elif place is not None and where in by_row:
            cells += [""] * (place + 1 - len(cells))
            cells[place] = by_row[where]
        writer.writerow(cells)
    with atomic_path(path) as temporary:
        temporary.write_text(head.replace("\n", ends) + text.getvalue(), encoding=encoding, newline="")


def _write_jsonl(path: Path, by_row: Mapping[str, Split]) -> None:
    """Write a JSONL file, keeping its encoding; a line that has no split yet is kept but for that."""
    encoding = encoding_of(path.read_bytes())
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if (split := by_row.get(f"line {number}")) is None:
            continue
        line = line.removeprefix("\ufeff")  # of a concatenated file
        record = json.loads(line)
        name = _split_column(record)
        if name is None:
            lines[number - 1] = f'{line.rstrip().removesuffix("}").rstrip()}, "{COLUMN}": "{split}"}}'
        else:
            lines[number - 1] = json.dumps(record | {name: split}, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding=encoding, newline="")


def _write_parquet(path: Path, by_row: Mapping[str, Split]) -> None:
    with pq.ParquetFile(path) as file:
        table = file.read()
    splits = pa.array([by_row.get(f"row {number}") for number in range(1, len(table) + 1)], pa.string())
    name = _split_column(table.column_names)
    if name is None:
        table = table.append_column(COLUMN, splits)
    else:
        table = table.set_column(table.column_names.index(name), name, splits)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _split_column(names: Iterable[str]) -> str | None:
    """The column of splits as the file spells it, such as `Split`; None without one."""
    return next((name for name in names if folded(name) == COLUMN), None)


_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_jsonl}
