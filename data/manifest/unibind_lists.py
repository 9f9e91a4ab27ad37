"""The official UniBind JSON lists, read as the rows of a manifest.

A dataset is a folder with `train_data.json`, `eval_data.json` and `test_data.json` (any of them may be
missing), each a list of `{"data": file, "label": category, "description": text}`; eval and test lists have no
descriptions. `data` is relative to `train_dataset/`, `eval_dataset/` or `test_dataset/` beside the lists, as
in the official README, or to the folder itself where there is no such sub-folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from data.errors import ManifestError
from data.paths import is_absolute
from data.reads import names
from data.tables.read import Mistakes, TextRow, TextTable, parse_json, read_text, text_of

LISTS = {"train_data.json": "train", "eval_data.json": "val", "test_data.json": "test"}
_COLUMNS = {"data": "uri", "label": "category", "description": "description"}


def find_lists(path: Path) -> list[Path]:
    """The lists of a folder, or a list and its siblings. Empty where `path` is neither."""
    # Path.is_dir raises for names that are too long for a file.
    if os.path.isdir(path):  # noqa: PTH112
        folder = path
    elif path.name in LISTS and path.is_file():
        folder = path.parent
    else:
        return []
    there = names(folder, "*_data.json")
    return [folder / name for name in LISTS if folder / name in there and (folder / name).is_file()]


def read_lists(lists: list[Path], mistakes: Mistakes) -> TextTable:
    """The lists as one table with the columns sample_id, uri, category, split and description.

    `sample_id` is `<split>/<data>`, because official lists may contain a file in several splits. Entries with
    missing or unknown keys are added to `mistakes`. Raises ManifestError where a file is not a JSON list.
    """
    rows = []
    for path in lists:
        split = LISTS[path.name]
        media = f"{path.name.removesuffix('_data.json')}_dataset"
        prefix = f"{media}/" if names(path.parent, f"{media}/") else ""
        try:
            entries = parse_json(read_text(path))
        except ValueError as error:
            raise ManifestError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(entries, list):
            raise ManifestError(f"{path}: a {type(entries).__name__}, not a list of objects")
        for number, entry in enumerate(entries, start=1):
            where = f"{path.name} entry {number}"
            if not isinstance(entry, dict):
                mistakes.add(where, f"a {type(entry).__name__}, not an object")
                continue
            for key in entry.keys() - _COLUMNS.keys():
                mistakes.add(where, f"unknown key {key!r}", given=key, known=_COLUMNS)
            data, text = (
                text_of(entry.get(key), where, repr(key), mistakes) for key in ("data", "description")
            )
            label = text_of(entry.get("label"), where, "'label'", mistakes, strip=False)
            if isinstance(data, list) or isinstance(label, list) or isinstance(text, list):
                mistakes.add(where, "a list where text belongs")
            elif data is None:
                mistakes.add(where, "'data' is missing; it names the file")
            elif label is None:
                mistakes.add(where, "'label' is missing; it names the category")
            else:
                cells = {
                    "sample_id": f"{split}/{data}",
                    "uri": data if is_absolute(data) else prefix + data,  # an absolute one is refused later
                    "category": label,
                    "split": split,
                    "description": text,
                }
                rows.append(TextRow(where, cells))
    return TextTable(frozenset({"sample_id", "uri", "category", "split", "description"}), rows)
