"""The records of a benchmark: its rules and the paper's numbers, and input and output of its importer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import ManifestError
from data.modality import Modality
from data.sample import Category, Sample


@dataclass(frozen=True)
class Paper:
    """Top-1 % of UniBind's main table (arXiv 2403.12532); None where the table has a dash."""

    zero_shot_base: float
    zero_shot_unibind: float
    fine_tuned_probe: float | None
    fine_tuned_unibind: float | None
    base: str  # the model under "base": ImageBind-huge, Point-Bind or E-CLIP


@dataclass(frozen=True)
class Wanted:
    """Which part of a benchmark to import."""

    train: bool = False  # also train and val samples; else only the test split
    fold: int | None = None  # the test fold, or the number of the split, from 1 on
    variant: str | None = None  # one of the benchmark's variants; None: the first
    partial: bool = False  # skip missing files, with a note, instead of raising


# Creates the file of a sample's uri, relative to the given folder. Raises SampleError.
Prepare = Callable[[Sample, Path], None]


@dataclass(frozen=True)
class Imported:
    """A benchmark's samples, in a fixed order. Uris are relative to the benchmark's folder.

    With `prepare`, uris are relative to an output folder instead, whose files `prepare` has to create;
    `recipe` identifies how, so that another recipe gets another folder. `notes`: what was skipped, which
    split was drawn.
    """

    samples: tuple[Sample, ...]
    categories: tuple[Category, ...]
    notes: tuple[str, ...] = ()
    prepare: Prepare | None = None
    recipe: str = ""

    def __post_init__(self) -> None:
        """Raise ManifestError where two classes have the same slug, which is their id."""
        names: dict[str, str] = {}
        for category in self.categories:
            twin = names.setdefault(category.category_id, category.name)
            if twin != category.name:
                raise ManifestError(
                    f"the classes {twin!r} and {category.name!r} have one id, {category.category_id!r};"
                    " these are not the lists of the benchmark"
                )


@dataclass(frozen=True)
class Benchmark:
    """One of the paper's benchmarks. `read` imports it: see `Wanted` and `Imported`.

    `doubt`: why results here are not comparable with the paper's numbers; empty where they are. `folds`: the
    number of folds or splits that results are averaged over, or 0. `fold_needed`: whether the test split
    depends on the fold even without training; else "no fold" means all samples.
    """

    name: str
    title: str
    modality: Modality
    classes: int | None  # None where it is not known
    paper: Paper
    licence: str
    home: str
    layout: str
    split_rule: str
    metric_rule: str
    read: Callable[[Path, Wanted], Imported]
    folds: int = 0
    fold_needed: bool = False
    variants: Sequence[str] = ()
    doubt: str = ""
