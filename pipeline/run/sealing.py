"""Checksums of the files of a run (data/seals.py): each stage adds its outputs when it completes.

The run, its knowledge base and each study have a list each, so that they can be checked alone. Not listed are
the cells of studies and the files of the tabletop world, whose SHA-256 is in cell.json and samples.parquet,
and the marks, which contain their own checksum.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from data.errors import DamagedError, KnowledgeBaseError
from data.lock import write_lock
from data.seals import Sum, discard, seal, sealed, unseal
from data.show import visible
from kb_builder.added.sources import seal_sources
from kb_builder.added.struck import seal_struck
from kb_builder.tables.parts import MANIFEST, read_manifest
from pipeline.project import ProjectFile
from pipeline.run.jobs import STAGES
from pipeline.run.stage import Stage

_NOT_SEALED = "world"
_LEDGER = "ledger.sqlite"
STUDY_FILES = ("study.json", "study.html")
_STUDY = "study"  # their maker


def seal_outputs(project: ProjectFile, stage: Stage) -> None:
    """Add the checksums of a finished stage's outputs. The caller holds the run's lock."""
    files = _files(project, stage)
    if stage.name == _NOT_SEALED:
        return
    for base, own in files.items():
        if own or _lines(base):
            seal(base, own, stage.name)
    if stage.name.startswith("describe-"):
        seal(project.kb, [project.kb / "descriptions" / MANIFEST], MANIFEST)
        ledger = project.kb / _LEDGER
        if _LEDGER not in _lines(project.kb) and not ledger.with_name(f"{_LEDGER}-wal").exists():
            seal(project.kb, [ledger], _LEDGER)


def unseal_outputs(project: ProjectFile, stage: Stage) -> None:
    """Remove the checksums of files that a stage is about to write. The caller holds the run's lock."""
    for base in (project.kb, project.run):
        unseal(base, stage.name)
    if stage.name.startswith("describe-"):
        unseal(project.kb, MANIFEST)


def seal_all(project: ProjectFile) -> int:
    """Write new checksums of every file of a run as it is now; returns the number of files.

    Raises KnowledgeBaseError where there is no knowledge base, or another process works on the run.
    """
    if not (project.kb / "categories.parquet").is_file():
        raise KnowledgeBaseError(f"{project.kb} holds no knowledge base yet; `unibind run` makes one")
    with write_lock(project.run / "run.lock"), write_lock(project.kb / "ledger.lock"):
        drop_damaged(project)
        for stage in STAGES:
            seal_outputs(project, stage)
        seal(project.run, [project.run / "metrics.json"], "metrics")
        seal(project.kb, [project.kb / _LEDGER], _LEDGER)
        seal_sources(project.kb)
        seal_struck(project.kb)
        studies = [path for path in (project.run / "studies").glob("*") if path.is_dir()]
        of_studies = sum(map(seal_study, studies))
        return len(_lines(project.kb)) + len(_lines(project.run)) + of_studies


def seal_study(folder: Path) -> int:
    """Add the checksums of a study's results to the list in its folder; returns the number of files."""
    found = [folder / name for name in STUDY_FILES if (folder / name).is_file()]
    seal(folder, found, _STUDY)
    return len(found)


def unseal_study(folder: Path) -> None:
    """Remove the checksums of results that a study is about to write."""
    unseal(folder, _STUDY)


def drop_damaged(project: ProjectFile) -> None:
    """Remove a damaged list with a note; stages whose marks hold write their checksums again."""
    for base in (project.kb, project.run):
        try:
            sealed(base)
        except DamagedError as error:
            print(f"  note: {visible(error.path)} is damaged; writing it again", file=sys.stderr, flush=True)
            discard(base)
    manifest = project.kb / "descriptions" / MANIFEST
    try:
        read_manifest(project.kb)
    except KnowledgeBaseError:
        print(f"  note: {visible(manifest)} is damaged; writing it again", file=sys.stderr, flush=True)
        manifest.unlink()


def is_sealed(project: ProjectFile, stage: Stage) -> bool:
    """Whether every output of a finished stage is in the lists."""
    if stage.name == _NOT_SEALED:
        return True
    files = _files(project, stage)
    return all(
        path.relative_to(base).as_posix() in lines
        for base, own in files.items()
        for lines in [_lines(base)]
        for path in own
    )


def _files(project: ProjectFile, stage: Stage) -> dict[Path, list[Path]]:
    """The outputs of a stage, by the folder whose list they belong to."""
    found: dict[Path, list[Path]] = {project.kb: [], project.run: []}
    for path in stage.outputs(project):
        found[project.kb if path.is_relative_to(project.kb) else project.run].append(path)
    return found


def _lines(base: Path) -> Mapping[str, Sum]:
    try:
        return sealed(base) or {}
    except DamagedError:
        return {}
