"""The project file: read one TOML file that says what to run, and report all its mistakes at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from data.errors import KnowledgeBaseError, ProjectError, foreign_as
from data.modality import Modality
from data.readers.axes import Up
from data.readers.sandbox.budget import LEAST_MEMORY, FileBudget, parse_bytes
from data.special_files import misplaced_entries
from data.tables.text_files import read_toml
from data.tabletop.settings import TabletopSettings
from kb_builder.settings import DescribeCategories, DescribeSamples, Encode, writer_traits
from trainer.settings import Evaluate, Localize, Predict, Train

TABLETOP = "tabletop"  # the manifest name of the built-in sample world


class _ProjectSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_ProjectSection):
    """`[data]`: the samples."""

    manifest: str = Field(min_length=1)  # "tabletop", or a path relative to the project file
    # The folder the manifest's uris are relative to; its own folder by default.
    root: str | None = Field(default=None, min_length=1)
    modality: Modality | None = None  # of every sample, where the manifest has no such column
    # An optional category list, relative to the project file.
    categories: str | None = Field(default=None, min_length=1)
    up: Literal["auto", "x", "y", "z"] = "auto"  # the up axis of clouds and meshes; auto: by file format
    # Limits of decoding one file; a file that exceeds them is quarantined, and the run continues.
    seconds_per_file: float = Field(default=FileBudget().seconds, ge=0.1, le=86_400)  # of processor time
    memory_per_file: Annotated[int, BeforeValidator(parse_bytes), Field(ge=LEAST_MEMORY)] = (
        FileBudget().memory
    )

    @property
    def up_axis(self) -> Up | None:
        """The up axis for the readers; None: by file format."""
        return None if self.up == "auto" else self.up

    @property
    def budget(self) -> FileBudget:
        """Both limits, for the readers."""
        return FileBudget(self.seconds_per_file, self.memory_per_file)


class DescribeSection(_ProjectSection):
    """`[describe]`: the describers of categories and samples."""

    categories: DescribeCategories = DescribeCategories()
    samples: DescribeSamples = DescribeSamples()


class WorkersSection(_ProjectSection):
    """`[run.workers]`: what one worker of an engine takes of its machine."""

    cpus: int = Field(default=1, ge=1, le=1024)  # cores of one worker, and the number of its threads
    gpus: float = Field(default=0, ge=0, le=64)


def _place(given: str) -> str:
    if not given or ("://" in given and not re.match(r"s3://[^/]+/+[^/]", given)):
        raise ValueError(f"{given!r}: give s3://BUCKET/NAME, or the path of a folder")
    return given


class RunSection(_ProjectSection):
    """`[run]`: where work is done. No file depends on it, so no stage runs again when it changes."""

    engine: Literal["local", "ray"] = "local"
    address: str | None = Field(default=None, min_length=1)  # of a Ray cluster; None: RAY_ADDRESS
    same_hardware: bool = False  # refuse vectors that several classes of hardware made
    publish: Annotated[str, AfterValidator(_place)] | None = None  # where to publish to as a run goes
    workers: WorkersSection = WorkersSection()


class _ProjectContent(_ProjectSection):
    """The content of a project file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0)
    data: DataSection
    tabletop: TabletopSettings = TabletopSettings()
    describe: DescribeSection = DescribeSection()
    encode: Encode = Encode()
    localize: Localize = Localize()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    running: RunSection = Field(default=RunSection(), alias="run")  # `run` is the folder
    predict: Predict = Predict()


class ProjectFile(_ProjectContent):
    """A checked project file and its path. Every path is absolute."""

    path: Path

    @property
    def run(self) -> Path:
        """The folder of everything that a run writes."""
        return self.path.parent / "runs" / self.name

    @property
    def kb(self) -> Path:
        """The knowledge base's folder."""
        return self.run / "kb"

    @property
    def manifest(self) -> Path:
        """The manifest's path; for the tabletop world, where the world stage writes it."""
        if self.data.manifest == TABLETOP:
            return self.run / "world" / "manifest.parquet"
        return self.path.parent / self.data.manifest

    @property
    def data_root(self) -> Path:
        """The folder that the manifest's uris are relative to."""
        if self.data.root is not None:
            return self.path.parent / self.data.root
        return self.manifest if self.manifest.is_dir() else self.manifest.parent

    @property
    def publish_to(self) -> str | None:
        """Where a run publishes to as it goes: `s3://BUCKET/NAME`, or the path of a folder."""
        given = self.running.publish
        return given if given is None or "://" in given else str(self.path.parent / given)

    def with_reuse(self) -> ProjectFile:
        """The same project with `reuse` on in both describe sections."""
        describe = DescribeSection(
            categories=replace(self.describe.categories, reuse=True),
            samples=replace(self.describe.samples, reuse=True),
        )
        return self.model_copy(update={"describe": describe})

    @property
    def categories(self) -> Path | None:
        """The category list's path, if there is one."""
        if self.data.manifest == TABLETOP:
            return self.run / "world" / "categories.csv"
        return self.path.parent / self.data.categories if self.data.categories else None


# Sections with a `seed`: the project's is their default.
_SEEDED = (
    ("tabletop",),
    ("describe", "categories"),
    ("describe", "samples"),
    ("localize",),
    ("train",),
    ("evaluate",),
)


def load_project(path: Path, changes: Mapping[str, Any] | None = None) -> ProjectFile:
    """Read and check a project file; `changes` replace values in it.

    Raises ProjectError where there is no such file, where it is not TOML (with the line), and with the list
    of all its mistakes; KnowledgeBaseError as `require_plain` does.
    """
    with foreign_as(ProjectError, f"{path}: cannot be read"):  # a loop of links, a name too long
        path = path.resolve()
        is_folder, is_there = path.is_dir(), path.exists()
    if is_folder:
        raise ProjectError(f"{path} is a folder; name the project file in it")
    if not is_there:
        raise ProjectError(
            f"{path}: no such project file; make one with `unibind init FOLDER` or name one with --project"
        )
    content = read_toml(path, ProjectError)
    with foreign_as(ProjectError, f"{path}: cannot be checked"):
        try:
            checked = _ProjectContent.model_validate(_with_seed(merged(content, changes or {})))
        except ValidationError as error:
            mistakes = [_mistake(each) for each in error.errors()]
            count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
            raise ProjectError(f"{path}: {count}\n" + "\n".join(f"  {each}" for each in mistakes)) from None
    sections = {_key(name, type(checked).model_fields[name]): value for name, value in checked}
    project = ProjectFile(
        path=path, **sections | {"describe": _with_models_found(checked.describe, path.parent)}
    )
    with foreign_as(ProjectError, f"{path}: the run's folder cannot be read"):  # its name is too long
        require_plain(project.run)
    return project


def require_plain(run: Path) -> None:
    """Raise KnowledgeBaseError where a pipe, a device, a broken link or the like is in a run's folder.

    Opening one would block for ever, or fail with a library's message.
    """
    found = list(misplaced_entries(run))
    if found:
        others = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        raise KnowledgeBaseError(f"{found[0]}{others}")


def _with_models_found(describe: DescribeSection, folder: Path) -> DescribeSection:
    """Make the path of a GGUF file absolute if it is relative to the project file, as a manifest's is."""

    def found(settings: Any) -> Any:
        beside = None if settings.model is None else folder / settings.model
        if beside is None or not writer_traits(settings).gguf or not beside.exists():
            return settings
        return replace(settings, model=str(beside))

    return DescribeSection(categories=found(describe.categories), samples=found(describe.samples))


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with some values replaced: a deep copy."""
    result = deepcopy(dict(content))
    for key, value in changes.items():
        inner = result.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            result[key] = merged(inner, value)
        else:
            result[key] = deepcopy(value)
    return result


def _with_seed(content: dict[str, Any]) -> dict[str, Any]:
    seed = content.get("seed", 0)
    for keys in _SEEDED:
        section: Any = content
        for key in keys:
            section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault("seed", seed)
    return content


def _mistake(error: Any) -> str:
    """One error of pydantic as a line: key, what is wrong, a suggestion."""
    keys = [str(part) for part in error["loc"]]
    key = ".".join(keys)
    if error["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        return f"{key}: unknown key; " + (
            f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "literal_error":
        given = error["input"]
        allowed = error["ctx"]["expected"]
        close = difflib.get_close_matches(
            str(given), allowed.replace("'", "").replace(" or ", ", ").split(", "), n=1
        )
        return f"{key}: {given!r} is not {allowed}" + (f"; did you mean {close[0]!r}?" if close else "")
    if error["type"] == "value_error":  # our own checks; the input may be a secret
        return f"{key}: {error['ctx']['error']}"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]} (given: {error['input']!r})"


def _key(name: str, field: FieldInfo) -> str:
    """The key of a field in the project file."""
    return field.alias or name


def _known_keys(keys: list[str]) -> list[str]:
    section: Any = _ProjectContent
    for key in keys:
        if isinstance(section, type) and issubclass(section, BaseModel):
            hints: dict[str, Any] = {
                _key(name, field): field.annotation for name, field in section.model_fields.items()
            }
        else:
            hints = get_type_hints(section) if is_dataclass(section) else {}
        if key not in hints:
            return []
        section = next((each for each in get_args(hints[key]) if is_dataclass(each)), hints[key])
    if isinstance(section, type) and issubclass(section, BaseModel):
        return [_key(name, field) for name, field in section.model_fields.items()]
    return [field.name for field in fields(section)] if is_dataclass(section) else []
