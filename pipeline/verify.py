"""`unibind kb verify`: check the knowledge base, the run's other files, the marks and the studies."""

from __future__ import annotations

from pathlib import Path

from data.errors import DamagedError
from data.files import hash_file
from data.seals import SEAL, sealed
from kb_builder.verify.files import Looked, check_sealed
from kb_builder.verify.findings import Findings, Verification
from kb_builder.verify.verify import verification, verify_into
from pipeline.project import ProjectFile
from pipeline.run.marks import FORMAT, damaged_marks, marks, missing_marks
from pipeline.study.cells import damaged_cells


def verify_project(project: ProjectFile, *, media: bool = False, deep: bool = False) -> Verification:
    """Check every file of a project's run, and with `media` the samples' files. Writes nothing.

    `deep` derives every row of the descriptions again, also where its file is unchanged.
    Raises KnowledgeBaseError where there is no knowledge base; everything else is a finding.
    """
    found, looked = Findings(), Looked()
    root = project.data_root if media else None
    verify_into(project.kb, found, looked, media=root, below="kb/", deep=deep)
    with found.guard(SEAL):
        check_sealed(project.run, found, looked)
    with found.guard("stages"):
        _check_marks(project, found, looked)
    for folder in sorted(path for path in (project.run / "studies").glob("*") if path.is_dir()):
        with found.guard(_name(project, folder)):
            check_sealed(folder, found, looked, below=f"{_name(project, folder)}/", maker="unibind study")
    with found.guard("studies"):
        for path, wrong in damaged_cells(project.run / "studies", looked):
            found.error("file damaged", _name(project, path), wrong)
    return verification(found, looked)


def _check_marks(project: ProjectFile, found: Findings, looked: Looked) -> None:
    for path, wrong in damaged_marks(project):
        found.error("mark damaged", _name(project, path), wrong)
    for path in missing_marks(project):
        text = "its stage was stopped, or the mark deleted; the stage will run again"
        found.note("mark missing", _name(project, path), text)
    lists_missing = set()
    for key, mark in marks(project):
        looked.counts["marks"] += 1
        if mark.get("format") != FORMAT:
            found.note("mark of an earlier version", f"stages/{key}.json", "its stage will run again")
            continue
        for name, (digest, _) in mark["outputs"].items():
            path = project.run / name
            base = project.kb if path.is_relative_to(project.kb) else project.run
            if not name.startswith("world/") and _has_no_list(base):
                lists_missing.add(base)
            if path in looked.told:
                continue
            if path in looked.sums:
                if looked.sums[path].sha256 != digest:
                    text = f"of another state of {name}; its stage will run again"
                    found.error("mark of another state", f"stages/{key}.json", text)
                continue
            if (changed := _wrong(path, digest, looked)) is not None:
                looked.told.add(path)
                text = f"{changed}, by the mark of its stage; `unibind run` makes it again"
                found.error("file damaged", name, text)
    for base in sorted(lists_missing):
        text = "missing; `unibind run` writes it, or `unibind kb verify --seal`"
        found.error("checksums missing", _name(project, base / SEAL), text)


def _has_no_list(base: Path) -> bool:
    try:
        return sealed(base) is None
    except DamagedError:
        return False  # already a finding


def _wrong(path: Path, digest: str, looked: Looked) -> str | None:
    if not path.is_file():
        return "missing, or not a regular file"
    looked.at(path)
    return None if hash_file(path) == digest else "changed"


def _name(project: ProjectFile, path: Path) -> str:
    return path.relative_to(project.run).as_posix()
