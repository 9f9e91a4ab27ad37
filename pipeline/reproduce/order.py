"""The options of `unibind reproduce`, and the project file that is written from them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.benchmarks import Benchmark
from data.errors import InputError
from data.files import hash_text, write_text
from data.manifest.read import write_manifest
from data.sample import Category, Sample
from kb_builder.encoders.base import JOIN
from kb_builder.weights.known import model_folder
from pipeline.project import ProjectFile, load_project

EMBEDDED = "conse"  # the name of the embedded default: photos in the text space without training
FEATURES = "efficientnet-lite0"  # its features of every modality, for heads


@dataclass(frozen=True)
class Order:
    """The options of a reproduction: benchmark, import, describer and encoder."""

    benchmark: Benchmark
    data: Path
    out: Path
    encoder: str = EMBEDDED
    describer: str = "local"
    model: str | None = None  # of the describer `openai`
    base_url: str | None = None
    texts: int = 50  # descriptions per category, and embedding centers
    train: bool = False
    fold: str | None = None  # a number, "all", or None for the benchmark's rule
    variant: str | None = None
    per_category: int | None = None  # samples of each category and split at most
    partial: bool = False
    epochs: int | None = None
    seed: int = 0

    @property
    def setting(self) -> str:
        """The paper's name of the setting."""
        return "fine-tuned" if self.train else "zero-shot"


def settled(encoder: str) -> str:
    """The encoder's name with absolute paths, so that the project file works from any folder.

    A name in the model folder becomes a path too: elsewhere, the model folder may be another.
    """
    return JOIN.join(_settled(part.strip()) for part in encoder.split(JOIN))


def _settled(encoder: str) -> str:
    family, colon, detail = encoder.rpartition(":")
    if not colon:  # a sentence-transformers model, which is a folder
        return str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
    places = [Path(detail), model_folder() / detail] if detail else []
    found = next((place for place in places if place.exists()), None)
    return f"{family}:{found.resolve()}" if found else encoder


def write_project(
    order: Order,
    fold: int | None,
    encode: dict[str, str],
    samples: Sequence[Sample],
    categories: Sequence[Category],
    root: Path,
) -> ProjectFile:
    """Write the project file with its manifest and category list, and load it.

    Raises InputError where the file has been edited since; run it with `unibind run` then.
    """
    name = "-".join(filter(None, (order.setting, order.variant, f"fold-{fold}" if fold else "")))
    path = order.out / f"{name}.toml"
    text = _sealed(_project_text(order, name, encode, root))
    if path.exists():
        before = path.read_text(encoding="utf-8")
        if before != _sealed(_unsealed(before)):
            raise InputError(
                f"{path} was edited; run it with `unibind run --project {path}`, or give another folder with"
                " --out"
            )
    write_manifest(order.out / f"{name}.parquet", samples, categories=categories)
    write_text(order.out / f"{name}.categories.csv", _category_list(categories))
    write_text(path, text)
    return load_project(path)


_SEAL = "# sha256 of the lines above, by which an edit is noticed: "


def _sealed(text: str) -> str:
    return f"{text}{_SEAL}{hash_text(text)}\n"


def _unsealed(text: str) -> str:
    return text.partition(_SEAL)[0]


def _project_text(order: Order, name: str, encode: dict[str, str], root: Path) -> str:
    asked = {"describer": order.describer, "model": order.model, "base_url": order.base_url, "n": order.texts}
    # Without training, descriptions of samples are not used, so none are paid for.
    described = "facts" if order.train else "none"
    sections: dict[str, Mapping[str, Any]] = {
        "data": {
            "manifest": f"{name}.parquet",
            "root": Path(os.path.relpath(root.resolve(), order.out.resolve())).as_posix(),
            "categories": f"{name}.categories.csv",
        },
        "describe.categories": {key: value for key, value in asked.items() if value is not None},
        "describe.samples": {"describer": described},
        "encode": encode,
        "localize": {"k": order.texts, "rule": "text"},
        "train": {"enabled": order.train} | ({"epochs": order.epochs} if order.epochs else {}),
        "evaluate": {"probe": order.train, "few_shot": [], "sweeps": False, "baselines": False},
    }
    lines = [
        f"# Made by `unibind reproduce {order.benchmark.name}`. Edit it and run it with `unibind run`.",
        f"# Split: {order.benchmark.split_rule}.",
        f"# Metric: {order.benchmark.metric_rule}.",
        f"name = {_toml(name)}",
        f"seed = {order.seed}",
    ]
    for section, values in sections.items():
        lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A string, number, boolean or list, which TOML writes as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _category_list(categories: Sequence[Category]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("category_id", "name", "aliases", "parent", "notes"))
    for each in categories:
        row = (each.category_id, each.name, "|".join(each.aliases), each.parent or "", each.notes or "")
        writer.writerow(row)
    return text.getvalue()
