"""Whether a stage must run again, and why: compare its mark with the settings, code and files of today.

A finished stage leaves a mark (pipeline/run/marks.py): the hash of the settings that it uses, of the code
that it can reach (pipeline/run/code.py), of everything it read (data/reads.py) and of every file it wrote. It
is stale when one of these differs. A file counts by its content: a stage that runs again and writes the same
bytes does not make later stages stale. Each shard of a describe stage has a mark too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_json
from pipeline.project import ProjectFile
from pipeline.run.code import code_hash
from pipeline.run.jobs import INGEST, STAGE_NAMES, find_stage, needs, plan, shards
from pipeline.run.marks import CODE_CHANGED, altered, read_mark
from pipeline.run.stage import Stage

# The samples' files by run folder: what has changed since ingest, or None. Filled while `media_checked_once`.
_media: dict[Path, str | None] = {}
_CHECK_ONCE = Path()  # the key that says so


def why_stale(project: ProjectFile, name: str) -> str | None:
    """Why a stage must run (again), in a few words: what has changed; None where it can be skipped."""
    code: str | None = None
    for why in _reasons(project, find_stage(name)):
        if why is not None and why != CODE_CHANGED:
            return why
        code = code or why
    return code


def _reasons(project: ProjectFile, stage: Stage) -> Iterator[str | None]:
    """What `why_stale` looks at, in turn: the stage or its shards, and the samples' files."""
    if stage.shards is None:
        yield why_part_stale(project, stage, stage.name)
    else:
        # The mark of the whole stage knows the outputs, those of the shards what each was made from.
        try:
            numbers = shards(project, stage.name)
        except KnowledgeBaseError as error:
            yield str(error)
            return
        yield altered(
            project, stage.name, hashes=hashes(project, stage), facts=lambda _: {"shards": len(numbers)}
        )
        for shard in numbers:
            yield why_part_stale(project, stage, shard_key(stage, shard), shard)
    yield why_media_stale(project, stage)


def is_current(project: ProjectFile, name: str) -> bool:
    """Whether a stage has run with today's inputs, settings and code, as all stages that it needs have."""
    if any(read_mark(project, need) is None for need in needs(project, find_stage(name))):
        return False
    return why_stale(project, name) is None


def require_current_before(project: ProjectFile, name: str) -> None:
    """Raise InputError where a stage before `name` is stale, saying what changed.

    A command that trains or evaluates alone uses what earlier stages wrote, which must fit today's files and
    settings. A stage that has not run at all is reported by `run_stage`. Two differences are printed as a
    note instead: changed code, and a missing manifest (a knowledge base may be copied to a machine without
    its samples, and trained on there).
    """
    before = STAGE_NAMES[: STAGE_NAMES.index(name)]
    with media_checked_once():
        for each in before:
            if each == "train" and "train" not in plan(project):
                continue
            if read_mark(project, each) is not None and (why := why_stale(project, each)):
                _note_or_raise(project, each, why)


def _note_or_raise(project: ProjectFile, name: str, why: str) -> None:
    no_manifest = not project.manifest.exists()
    if why == CODE_CHANGED or (no_manifest and (find_stage(name).media or name == INGEST)):
        note = f"the manifest {project.manifest} is missing" if no_manifest else f"{name}: {why}"
        print(f"  note: {note}; using what `{name}` wrote before", file=sys.stderr, flush=True)
        return
    option = "" if project.path.name == "unibind.toml" else f" --project {project.path.name}"
    raise InputError(f"{why} since `{name}` ran; run `unibind run{option}` to bring the project up to date")


def why_part_stale(project: ProjectFile, stage: Stage, key: str, shard: int | None = None) -> str | None:
    """Why the mark `key`, of a stage without shards or of one shard, does not hold; None where it holds."""

    def known(before: Mapping[str, Any]) -> Mapping[str, Any]:
        return before if stage.facts is None else stage.facts(project, _outputs_of(project, key), before)

    return altered(project, key, hashes=hashes(project, stage, shard), facts=known)


def why_media_stale(project: ProjectFile, stage: Stage) -> str | None:
    """What changed of the samples' files since ingest noted them, for a stage that opens them."""
    if not stage.media:
        return None
    if project.run in _media:
        return _media[project.run]
    why = why_part_stale(project, find_stage(INGEST), INGEST)
    if _CHECK_ONCE in _media:
        _media[project.run] = why
    return why


@contextmanager
def media_checked_once() -> Iterator[None]:
    """Until the block ends, check the samples' files only once: of a million it takes a while."""
    outer = _CHECK_ONCE in _media
    _media[_CHECK_ONCE] = None
    try:
        yield
    finally:
        if not outer:
            _media.clear()


def media_is_current(project: ProjectFile) -> None:
    """Say that the samples' files have just been read: ingest has run."""
    if _CHECK_ONCE in _media:
        _media[project.run] = None


def hashes(project: ProjectFile, stage: Stage, shard: int | None = None) -> dict[str, str]:
    """The hashes of a stage's settings (with the number of the shard, if any) and of its code."""
    return {
        "settings": hash_json([stage.settings(project), shard]),
        "code": code_hash(stage.run),
    }


def shard_key(stage: Stage, shard: int) -> str:
    """The name of a shard's mark, such as describe-categories-00003."""
    return f"{stage.name}-{shard:05d}"


def _outputs_of(project: ProjectFile, key: str) -> Sequence[Path]:
    mark = read_mark(project, key)
    names: Iterable[str] = mark.get("outputs", ()) if mark else ()
    return [project.run / name for name in names]
