"""`unibind init`: write a manifest and a commented project file for a folder of files."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from data.errors import InputError
from data.files import write_text
from data.folder.dataset import FolderScan, link_remedy, survey_folder
from data.manifest.read import write_manifest
from data.modality import Modality
from data.sample import Sample
from data.show import visible

DEFAULT_NAME = "unibind.toml"
# Control characters, which reading a project file refuses; and bytes of a path that are not UTF-8.
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Modalities that the default encoders map into the text space without training, and text itself.
_UNTRAINED: frozenset[Modality] = frozenset({"image", "video", "text"})

_TEMPLATE = """\
# A UniBind project. `unibind run` does all of it; `unibind train` aligns heads on the train split.
# Paths are relative to this file; everything made goes to runs/{name}/.
name = "{name}"
seed = 0

[data]
manifest = {manifest}  # one row per file: uri, modality, category, split, object_id. Edit it freely.
root = {root}  # the folder that the manifest's uris are relative to
# categories = "categories.csv"  # optional: category_id, name, aliases, parent, notes

[describe.categories]
describer = "local"  # the bundled SmolLM2-135M: free, offline, a poor writer
# describer = "openai"  # any OpenAI-compatible endpoint:
# model = "gpt-4.1-mini"
# base_url = "http://127.0.0.1:11434/v1"  # leave out for OpenAI itself
# api_key_env = "OPENAI_API_KEY"  # the variable that holds the key; the key itself is never written anywhere
n = 30  # unique valid texts per category
# aspects = ["look", "sound"]  # what is asked about; by default what the modalities of the samples show

[describe.samples]
describer = "facts"  # measured facts about each file; used by training, not by zero-shot

[localize]
k = 5  # embedding centers per category
rule = "name"  # no labels used; "visual" and "distinct" let the labelled train split guide the choice
with_name = true  # the bare name is one of the centers: a small LLM's texts alone can fall behind it

[train]
enabled = {enabled}  # {why}
"""


def init_project(
    folder: Path,
    target: Path,
    *,
    modality: Modality | None = None,
    by_name: bool = False,
    follow_links: bool = False,
) -> list[str]:
    """Write the project file `target` and a manifest beside it, of the samples that `survey_folder` finds.

    The manifest of `unibind.toml` is manifest.csv, that of `other.toml` is other.csv, so that one folder can
    hold several projects. Nothing is written into `folder`. Returns lines that say what was found and
    decided. Raises InputError where a file to be written exists, ManifestError where there is no sample.
    """
    target = project_file(target)
    manifest = target.with_name("manifest.csv" if target.name == DEFAULT_NAME else f"{target.stem}.csv")
    for path in (target, manifest):
        if path.exists():
            raise InputError(
                f"{path} already exists; remove it, or write a second project beside it with `-p other.toml`"
            )
    scan = survey_folder(folder, modality=modality, by_name=by_name, follow_links=follow_links)
    name, renamed = _name(folder, target)
    enabled, why = trains(scan.samples)
    root = Path(os.path.relpath(scan.root.resolve(), target.resolve().parent)).as_posix()
    for text in (root, manifest.name):
        if _UNFIT.search(text):
            raise InputError(
                f"{visible(text)}: holds a character that no project file can hold; rename the folder or file"
            )
    write_manifest(manifest, scan.samples, categories=scan.categories)
    write_text(
        target,
        _TEMPLATE.format(
            name=name,
            manifest=_quoted(manifest.name),
            root=_quoted(root),
            enabled=str(enabled).lower(),
            why=why,
        ),
    )
    return [
        *_found(folder, scan),
        *renamed,
        f"training is {'on' if enabled else 'off'}: {why}",
        f"wrote {target} and {manifest}",
        f"next: unibind run{'' if target == Path(DEFAULT_NAME) else f' -p {target}'}",
    ]


def trains(samples: Sequence[Sample]) -> tuple[bool, str]:
    """Whether `unibind run` should train heads for these samples, and why, in words.

    It should where a modality needs training to be compared with texts and can be trained: it has labelled
    train samples, and the labelled train samples of all modalities have at least two categories.
    """
    present = {sample.modality for sample in samples}
    trained: dict[Modality, int] = defaultdict(int)
    categories: set[str] = set()
    for sample in samples:
        if sample.split == "train" and sample.category_id is not None:
            trained[sample.modality] += 1
            categories.add(sample.category_id)
    untrained = sorted(present - _UNTRAINED)
    if not untrained:
        return False, (
            f"{_listed(sorted(present))}: recognised without it (zero-shot); `unibind train` aligns heads"
        )
    able = [kind for kind in untrained if trained[kind]]
    if len(categories) > 1 and able:
        return True, f"{_listed(able)} cannot be compared with texts without it, and there are labels"
    lack = (
        "no sample has a category"
        if not any(sample.category_id for sample in samples)
        else "the labelled train samples are of fewer than two categories"
    )
    return False, f"{_listed(untrained)} cannot be compared with texts without it, but {lack}"


def _listed(words: Collection[str]) -> str:
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def project_file(target: Path) -> Path:
    """The project file that is meant: unibind.toml in a folder, and a name without ending with .toml."""
    if target.is_dir():
        return target / DEFAULT_NAME
    return target if target.suffix else target.with_suffix(".toml")


def _name(folder: Path, target: Path) -> tuple[str, list[str]]:
    """The project's name, which is also the name of its run folder, and a note if it had to be changed."""
    stem = folder.resolve().name if target.name == DEFAULT_NAME else target.stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "project"
    taken = {*_names_beside(target), *(path.name for path in target.parent.glob("runs/*"))}
    if name not in taken:
        return name, []
    number = next(number for number in range(2, len(taken) + 3) if f"{name}-{number}" not in taken)
    return f"{name}-{number}", [f"named {name}-{number}: runs/{name} belongs to another project here"]


def _names_beside(target: Path) -> set[str]:
    names = set()
    for path in target.parent.glob("*.toml"):
        try:
            names.add(str(tomllib.loads(path.read_text(encoding="utf-8")).get("name")))
        except (OSError, ValueError):  # not a readable project file: it takes no name
            continue
    return names


def _found(folder: Path, scan: FolderScan) -> list[str]:
    per_modality = Counter(sample.modality for sample in scan.samples)
    counts = ", ".join(f"{number} {modality}" for modality, number in sorted(per_modality.items()))
    n = len(scan.categories)
    lines = [f"{folder}: {counts} in {n} categor{'y' if n == 1 else 'ies'}", *scan.notes]
    reasons = Counter(reason for _, reason in scan.skipped)
    for reason, number in sorted(reasons.items()):
        remedy = link_remedy(reason, folder)
        files = "file" if number == 1 else "files"
        lines.append(f"left out: {number} {files} ({reason}){f'. {remedy}' if remedy else ''}")
    return lines


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)
