"""`unibind init`: a manifest and a commented project file for a folder of files."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

from data.errors import InputError
from data.files import write_text
from data.folder import survey_folder
from data.manifest import write_manifest

_TEMPLATE = """\
# A UniBind project. `unibind run` does all of it; `unibind train` then aligns heads on the train split.
# Paths are relative to this file; everything made goes to runs/{name}/.
name = "{name}"
seed = 0

[data]
manifest = {manifest}  # one row per file: sample_id, uri, modality, category, split. Edit it freely.
root = {root}  # the folder that the manifest's uris are relative to
# categories = "categories.csv"  # optional: category_id, name, aliases, parent, notes

[describe.categories]
describer = "local"  # the bundled SmolLM2-135M: free, offline, a poor writer
# describer = "openai"  # any OpenAI-compatible endpoint:
# model = "gpt-4.1-mini"
# base_url = "http://127.0.0.1:11434/v1"  # leave out for OpenAI itself
# api_key_env = "OPENAI_API_KEY"  # the variable that holds the key; the key itself is never written anywhere
n = 30  # unique valid texts per category

[describe.samples]
describer = "facts"  # measured facts about each file; used by training, not by zero-shot

[localize]
k = 5  # embedding centers per category
rule = "name"  # no labels used; "visual" and "distinct" let the labelled train split guide the choice
with_name = true  # the bare name is one of the centers: a small LLM's texts alone can fall behind it

[train]
enabled = false  # `unibind run` stays zero-shot; `unibind train` aligns heads on the labelled train split
"""


def init_project(folder: Path, target: Path) -> list[str]:
    """Write the project file `target` and a manifest beside it; the sub-folders are the categories.

    Nothing is written into the folder itself. Returns lines that tell what was found.
    Raises InputError where a file to be written exists, ManifestError where the folder holds no sample.
    """
    scan = survey_folder(folder)
    manifest = target.parent / "manifest.parquet"
    for path in (target, manifest):
        if path.exists():
            raise InputError(f"{path} already exists; remove it, or give another place with --project")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "project"
    root = Path(os.path.relpath(folder.resolve(), target.resolve().parent)).as_posix()
    write_manifest(manifest, scan.samples, categories=scan.categories)
    write_text(target, _TEMPLATE.format(name=name, manifest=_quoted(manifest.name), root=_quoted(root)))
    per_modality = Counter(sample.modality for sample in scan.samples)
    counts = ", ".join(f"{number} {modality}" for modality, number in sorted(per_modality.items()))
    lines = [f"{folder}: {counts} in {len(scan.categories)} categories"]
    reasons = Counter(reason for _, reason in scan.skipped)
    lines += [f"left out: {number} files ({reason})" for reason, number in sorted(reasons.items())]
    lines += scan.notes
    return [*lines, f"wrote {target} and {manifest}", "next: unibind run"]


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)
