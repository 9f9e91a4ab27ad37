"""The study file: read and check the variants of the method, and the claims to test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from data.errors import ProjectError
from data.tables.text_files import read_toml
from kb_builder.bounds import distinct
from pipeline.project import ProjectFile, load_project, merged
from trainer.variant import Variant

Anchors = Literal["llm_centers", "class_name", "templates", "random_words", "permuted", "name_free", "notes"]


class _StudySection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantSection(_StudySection):
    """What a variant changes in the reference; if nothing, it is the reference."""

    localize: dict[str, Any] = {}
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    anchors: Anchors = "llm_centers"  # the texts of the categories, in training and in the test
    at_test: Anchors = "llm_centers"  # in the test only; the heads are the reference's
    shots: int | None = Field(default=None, ge=1)  # labelled train samples per category and modality


class AblationSection(_StudySection):
    """One part of the method, and the variants of it."""

    question: str
    variants: dict[str, VariantSection] = Field(min_length=1)


class ClaimSection(_StudySection):
    """A claim: the reference is better than a variant."""

    text: str
    ablation: str
    variant: str
    measure: str


class StudyFile(_StudySection):
    """The content of a study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    project: str
    seeds: Annotated[list[int], AfterValidator(distinct)] = Field(default=[0, 1, 2, 3, 4], min_length=1)
    set: dict[str, Any] = {}  # changes of the project file, for the whole study
    ablations: dict[str, AblationSection] = Field(min_length=1)
    claims: list[ClaimSection] = []


@dataclass(frozen=True)
class Study:
    """A checked study: its project, and every variant with every seed."""

    file: StudyFile
    project: ProjectFile
    variants: dict[tuple[str, str], list[Variant]]  # (ablation, variant) -> one per seed
    reference: list[Variant]


def load_study(path: Path) -> Study:
    """Read and check a study file.

    Raises ProjectError where there is no such file, it is not TOML, or it or a variant has mistakes.
    """
    if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises for names that are too long for a file)
        raise ProjectError(f"{path}: no such study file; `ablation.toml` in the repository is an example")
    try:
        file = StudyFile.model_validate(read_toml(path, ProjectError))
    except ValidationError as error:
        mistakes = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ProjectError(f"{path}: {len(mistakes)} mistakes\n" + "\n".join(mistakes)) from None
    _check_claims(path, file)
    source = path.resolve().parent / file.project
    variants = {
        (ablation, name): _of_every_seed(path, source, file, section)
        for ablation, part in file.ablations.items()
        for name, section in part.variants.items()
    }
    reference = _of_every_seed(path, source, file, VariantSection())
    return Study(file, load_project(source, file.set), variants, reference)


def _of_every_seed(path: Path, source: Path, file: StudyFile, section: VariantSection) -> list[Variant]:
    changes = {"localize": section.localize, "train": section.train, "evaluate": section.evaluate}
    found = []
    for seed in file.seeds:
        project = load_project(source, merged(file.set, merged(changes, {"seed": seed})))
        found.append(
            Variant(project.localize, project.train, project.evaluate, section.anchors, section.shots)
        )
    if len({each.train.seed for each in found}) < len(found):
        raise ProjectError(
            f"{path}: every seed would train the same heads, because `seed` is set under [train] in {source}"
            " or in the study; remove it there"
        )
    return found


def _check_claims(path: Path, file: StudyFile) -> None:
    for claim in file.claims:
        variants: Mapping[str, Any] = (
            file.ablations[claim.ablation].variants if claim.ablation in file.ablations else {}
        )
        if claim.variant not in variants:
            raise ProjectError(
                f"{path}: claim {claim.text!r} is about {claim.ablation}, {claim.variant}: no such variant"
            )
