"""What a benchmark is: its rules and the paper's numbers, and what its importer takes and gives."""

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
    """Which part of a benchmark is read."""

    train: bool = False  # train and val samples, too; without it only the test split is looked at
    fold: int | None = None  # the test fold or the number of the split, from 1 on
    variant: str | None = None  # one of the benchmark's variants; None is the first
    partial: bool = False  # what is missing is left out and told, instead of refused


# Makes the file that a sample's uri names, relative to the given folder. Raises SampleError.
Prepare = Callable[[Sample, Path], None]


@dataclass(frozen=True)
class Imported:
    """A benchmark's samples, in a fixed order. Uris are relative to the benchmark's folder.

    With `prepare` they are relative to a folder of ours instead, whose files are still to be made; `recipe`
    then names how they are made, so that another recipe gets another folder. `notes` are for people:
    what was left out, which val split was drawn.
    """

    samples: tuple[Sample, ...]
    categories: tuple[Category, ...]
    notes: tuple[str, ...] = ()
    prepare: Prepare | None = None
    recipe: str = ""

    def __post_init__(self) -> None:
        """ManifestError where the slugs of two classes, which are their ids here, meet."""
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

    `doubt` says why the paper's numbers are no yardstick for whatever is measured here; empty where they are.
    `folds` is the number of folds or splits that results are averaged over, or 0. `fold_needed`: the test
    split depends on the fold even without training; else no fold stands for all samples.
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
