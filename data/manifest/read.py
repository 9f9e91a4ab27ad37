"""Reads and writes manifests: the list of a dataset's samples.

Columns: `uri` (a path relative to the manifest's folder); optionally

- `sample_id`: default the uri;
- `modality`: default the `modality` argument, else guessed from the file name (`data.modality`);
- `split` (train, val, test): default test, so the samples are scored and never trained on;
- `category` (a name) and/or `category_id` (default: derived from the names by `data.manifest.ids`, which also
  says which names are the same): default none. Several categories of one sample are a list, or text separated
  by `|` (a name of the category list that contains a `|` takes precedence); the first is used for training,
  any of them counts as correct;
- `object_id`: the same for all samples of one object; default none;
- `description`: a text about the sample, used instead of a describer's; default none.

Defaults apply to missing columns; `Manifest.notes` lists those that were used. In an existing column an empty
`modality` or `split` is a mistake. A `\\` in a uri separates folders, as on Windows, unless a file with
exactly that name exists.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import ManifestError, SampleError
from data.files import atomic_path
from data.manifest.categories import read_categories
from data.manifest.doubts import doubtful_samples
from data.manifest.ids import category_ids, name_key
from data.manifest.names import BETWEEN, CategoryNames
from data.manifest.unibind_lists import LISTS, find_lists, read_lists
from data.modality import MODALITIES, Modality, guess_modality
from data.paths import resolve, resolver
from data.sample import Category, Sample, Split
from data.splits import SPLIT_WORDS
from data.tables.read import Mistakes, TextRow, TextTable, folded, read_table

__all__ = ["Manifest", "read_manifest", "resolve", "write_manifest"]

T = TypeVar("T", bound=str)

SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = (
    "sample_id", "object_id", "modality", "uri", "category", "category_id", "split", "description"
)  # fmt: skip

_SEVERAL = ("category", "category_id")  # may be lists

# Common synonyms of modalities, splits and columns: suggested in error messages, never accepted silently.
_MODALITY_WORDS: dict[str, Modality] = {
    **dict.fromkeys(("photo", "picture", "rgb", "img", "vision"), "image"),
    **dict.fromkeys(("sound", "wav", "speech", "music"), "audio"),
    **dict.fromkeys(("pointcloud", "point_cloud", "point cloud", "pc", "3d", "lidar", "mesh"), "point"),
    **dict.fromkeys(("infrared", "ir", "heat", "temperature"), "thermal"),
    **dict.fromkeys(("movie", "clip", "film"), "video"),
    **dict.fromkeys(("dvs", "neuromorphic"), "event"),
    **dict.fromkeys(("txt", "caption", "language", "string"), "text"),
}
_COLUMN_WORDS = {  # by their `folded` names
    **dict.fromkeys(
        ("path", "filepath", "file", "filename", "image", "imagepath", "audio", "video", "data"), "uri"
    ),
    **dict.fromkeys(("label", "class", "classname", "target", "species", "name"), "category"),
    **dict.fromkeys(("labelid", "classid", "classindex"), "category_id"),
    **dict.fromkeys(("id", "key", "uid"), "sample_id"),
    **dict.fromkeys(("subset", "fold", "partition", "set"), "split"),
    **dict.fromkeys(("caption", "text", "sentence"), "description"),
    **dict.fromkeys(("group", "instance", "thing"), "object_id"),
}

_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=name not in {"sample_id", "uri"}) for name in COLUMNS]
)


@dataclass(frozen=True)
class Manifest:
    """A checked dataset. `uri`s are relative to `root`; `notes` list defaults and other assumptions."""

    root: Path
    samples: tuple[Sample, ...]
    categories: tuple[Category, ...]
    notes: tuple[str, ...] = ()


def read_manifest(
    path: Path,
    *,
    categories: Path | None = None,
    modality: Modality | None = None,
    root: Path | None = None,
    splits: bool = True,
) -> Manifest:
    """Read a manifest (Parquet, CSV, TSV, JSONL) or the official UniBind lists (their folder or one of them).

    `categories`: a category list (`data.manifest.categories`); without one the categories are those named by
    the samples. `modality`: of every sample, if the manifest has no such column. `root`: the folder that uris
    are relative to, by default the manifest's. `splits=False` ignores the column `split`.

    Files need not exist: `kb_builder.tables.ingest` rejects missing ones, one by one. Raises one
    ManifestError that lists every structural mistake with its row.
    """
    lists = find_lists(path)
    if not lists and os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises for names too long for a file)
        raise ManifestError(
            f"{path} is a folder without a manifest; name a .parquet, .csv, .tsv or .jsonl file, "
            f"put {' / '.join(LISTS)} there, or make a manifest with `unibind init {path}`"
        )
    if path.suffix.lower() == ".json" and not lists:
        raise ManifestError(f"{path}: a .json manifest must be one of the UniBind lists {', '.join(LISTS)}")
    mistakes = Mistakes(path)
    listed = read_categories(categories, notes=mistakes.notes) if categories is not None else None
    table = read_lists(lists, mistakes) if lists else _read_rows(path, mistakes)
    if not splits:
        table = replace(table, columns=table.columns - {"split"})
    _check_columns(table, mistakes)
    root = root or (lists[0].parent if lists else path.parent)
    names = CategoryNames(listed, table)
    turned = _turn_slashes(table, root)
    if turned:
        mistakes.note(f"{turned} uri{'s' if turned > 1 else ''} with '\\': read as '/', the folder separator")
    in_root = resolver(root)
    samples: list[Sample] = []
    seen_at: dict[str, str] = {}
    for row in table.rows:
        identity = _identity(row, table, mistakes)
        if identity is None:
            continue
        sample_id, uri = identity
        try:
            in_root(uri)
        except SampleError as error:
            mistakes.add(row.where, f"uri {error}")
        first = seen_at.setdefault(sample_id, row.where)
        if first != row.where:
            mistakes.add(row.where, f"sample_id {sample_id!r} is already used by {first}")
        kind = _modality(row, root / uri, table, modality, mistakes)
        split = _split(row, table, mistakes)
        ids = names.ids_of(row, mistakes)
        if kind and split:
            cells = row.cells
            object_id, description = cells.get("object_id"), cells.get("description")
            samples.append(
                Sample(
                    sample_id,
                    kind,
                    uri,
                    split,
                    ids[0] if ids else None,
                    object_id,
                    description,
                    tuple(ids[1:]),
                )
            )
    if not table.rows:
        mistakes.add("manifest", "no sample in it")
    mistakes.raise_if_any()
    return Manifest(
        root,
        tuple(samples),
        names.categories(),
        (*mistakes.notes, *names.notes(), *_notes(table, samples, names, modality)),
    )


def _read_rows(path: Path, mistakes: Mistakes) -> TextTable:
    # Category names are kept verbatim, so that notes quote them as written. A .txt is Excel's "Unicode text".
    ending = ".tsv" if path.suffix.lower() == ".txt" else None
    return read_table(path, mistakes, known=COLUMNS, verbatim=("category",), ending=ending)


def manifest_rows(path: Path) -> list[TextRow]:
    """The raw rows of a manifest that is a table; one for each sample of `read_manifest`."""
    return _read_rows(path, Mistakes(path)).rows


def write_manifest(path: Path, samples: Sequence[Sample], *, categories: Sequence[Category] = ()) -> None:
    """Write samples as a manifest, in the given order, whole or not at all: CSV by that ending, else Parquet.

    `categories` supplies the names of the category ids; without it the manifest has ids only, and
    `read_manifest` needs a category list for the names. A CSV file omits ids that `read_manifest` derives
    from the names.
    """
    names = {category.category_id: category.name for category in categories}
    columns = [name for name in COLUMNS if name != "category" or names]
    rows = []
    for sample in samples:
        row = {name: getattr(sample, name) for name in COLUMNS if name != "category"}
        ids = [sample.category_id, *sample.more_category_ids] if sample.category_id else []
        row["category"] = BETWEEN.join(names[each] for each in ids if each in names) or None
        row["category_id"] = BETWEEN.join(ids) or None
        rows.append(row)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".csv":
            # Without categories the column is written empty, for the user to fill in.
            unnamed = not names and any(sample.category_id for sample in samples)
            _write_csv(temporary, rows, columns if names or unnamed else [*columns, "category"], names)
            return
        schema = pa.schema([_SCHEMA.field(name) for name in columns])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


# Column order of CSV manifests: what users edit most comes first.
_CSV_COLUMNS = (
    "sample_id", "uri", "modality", "category", "category_id", "split", "object_id", "description"
)  # fmt: skip


def _write_csv(
    path: Path, rows: Sequence[dict[str, str | None]], columns: Sequence[str], names: Mapping[str, str]
) -> None:
    """`names`: by id. Ids are omitted if `read_manifest` derives the same ones from the names."""
    made = category_ids(map(name_key, names.values()))
    derived = all(BETWEEN not in name and made[name_key(name)] == each for each, name in names.items())
    derived = derived and all((row["category"] is None) == (row["category_id"] is None) for row in rows)
    columns = [name for name in _CSV_COLUMNS if name in columns and not (derived and name == "category_id")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _check_columns(table: TextTable, mistakes: Mistakes) -> None:
    unknown = sorted(table.columns - set(COLUMNS))
    if table.rows and "uri" not in table.columns:
        has = ", ".join(map(repr, sorted(table.columns)))
        what = "no column 'uri', the file's path relative to the manifest's folder"
        if len(unknown) == len(table.columns):
            what += f"; the first line must name the columns, and it has {has:.200}"
        mistakes.add("header", what)
    for column in unknown:
        meant = _COLUMN_WORDS.get(folded(column))
        if meant and meant not in table.columns:
            mistakes.add("header", f"unknown column {column!r}; did you mean {meant!r}?")
        else:
            mistakes.add("header", f"unknown column {column!r}", given=column, known=COLUMNS)
    if "uri" not in table.columns:
        mistakes.raise_if_any()


def _turn_slashes(table: TextTable, root: Path) -> int:
    """Replace each `\\` in the uris by `/`, unless a file has that exact name; returns the number of uris
    changed."""
    turned = 0
    for row in table.rows:
        uri = row.cells.get("uri")
        if isinstance(uri, str) and "\\" in uri and not os.path.lexists(root / uri):
            row.cells["uri"] = uri.replace("\\", "/")
            turned += 1
    return turned


def _identity(row: TextRow, table: TextTable, mistakes: Mistakes) -> tuple[str, str] | None:
    """The row's sample_id and uri; None, with a mistake added, where the row is unusable."""
    cells = row.cells
    for column in COLUMNS:
        if column not in _SEVERAL and isinstance(cells.get(column), list):
            mistakes.add(row.where, f"{column} is a list, not text")
            return None
    uri: str | None = cells.get("uri")
    if uri is None:
        mistakes.add(row.where, "no uri")
        return None
    sample_id: str | None = cells.get("sample_id") if "sample_id" in table.columns else uri
    if sample_id is None:
        mistakes.add(row.where, "no sample_id")
        return None
    if any(letter in sample_id + uri for letter in "\n\r\t"):
        mistakes.add(row.where, f"a line break or tab in sample_id or uri: {uri!r}")
        return None
    return sample_id, uri


def _modality(
    row: TextRow, path: Path, table: TextTable, default: Modality | None, mistakes: Mistakes
) -> Modality | None:
    if "modality" not in table.columns:
        kind = default or guess_modality(path)
        if kind is None:
            mistakes.add(
                row.where,
                f"{row.cells.get('uri')!r} has no known modality by its name; add a column 'modality'",
            )
        return kind
    return _one_of(MODALITIES, _MODALITY_WORDS, "modality", row, mistakes)


def _split(row: TextRow, table: TextTable, mistakes: Mistakes) -> Split | None:
    if "split" not in table.columns:
        return "test"
    return _one_of(SPLITS, SPLIT_WORDS, "split", row, mistakes)


def _one_of(
    known: Sequence[T], words: Mapping[str, T], column: str, row: TextRow, mistakes: Mistakes
) -> T | None:
    given = row.cells.get(column)
    if given in known:
        return known[known.index(given)]
    if given is None:
        mistakes.add(row.where, f"no {column}: one of {', '.join(known)}")
    elif (lower := given.casefold()) in known:
        mistakes.note(f"{column} {given!r} is read as {lower!r}")
        return known[known.index(lower)]
    elif given.casefold() in words:
        mistakes.add(row.where, f"unknown {column} {given!r}; did you mean {words[given.casefold()]!r}?")
    else:
        mistakes.add(row.where, f"unknown {column} {given!r}", given=given, known=known)
    return None


def _notes(
    table: TextTable, samples: Sequence[Sample], names: CategoryNames, modality: Modality | None
) -> tuple[str, ...]:
    notes = []
    if "sample_id" not in table.columns:
        notes.append("no column sample_id: the uri is the id")
    if "modality" not in table.columns:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(Counter(s.modality for s in samples).items()))
        notes.append(
            f"no column modality: {'as set' if modality else 'guessed from the file names'} ({kinds})"
        )
    elif modality and (others := sum(sample.modality != modality for sample in samples)):
        notes.append(
            f"the column modality overrides `modality = {modality!r}` for {others} samples; remove the column"
            " to apply the setting to all"
        )
    if "split" not in table.columns:
        notes.append("no column split: every sample is 'test', scored and never trained on")
    if names.named_by_id:
        notes.append("no category names: derived from the category ids")
    unlabelled = sum(sample.category_id is None for sample in samples)
    if unlabelled:
        notes.append(f"{unlabelled} of {len(samples)} samples have no category: they are not scored")
    several = sum(bool(sample.more_category_ids) for sample in samples)
    if several:
        notes.append(
            f"{several} of {len(samples)} samples have several categories ({BETWEEN!r} separates them): the"
            " first is trained on, any of them counts as correct"
        )
    used = {each for sample in samples for each in (sample.category_id, *sample.more_category_ids)}
    unused = sum(category.category_id not in used for category in names.categories())
    if unused:
        notes.append(
            f"{unused} categories have no sample: they are candidates, but nothing is scored for them"
        )
    return (*notes, *doubtful_samples(samples))
