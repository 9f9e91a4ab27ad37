"""Known models (models.toml) and the model folder.

Weights are in `models/` in the current folder, beside the project file, or in the folder that the environment
variable UNIBIND_MODELS names. Only `unibind models get` downloads anything.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError

from data.errors import InputError
from data.reads import reading
from data.tables.text_files import read_toml
from kb_builder.settings import Address

VARIABLE = "UNIBIND_MODELS"
BUILT_IN = Path(__file__).with_name("models.toml")
NOT_STATED = "not stated"
logger = logging.getLogger(__name__)


def _inside(name: str) -> str:
    """A file's path inside its model's folder: relative, without steps outwards."""
    path = Path(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name:
        raise ValueError("must be a relative path inside the model's folder")
    return name


@dataclass(frozen=True)
class ModelFile:
    """One file of a model, and the address it can be downloaded from.

    `sha256` is None if its publisher states none; then the hub's header is used, if there is one.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic)

    path: Annotated[str, AfterValidator(_inside)]
    url: Address
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    size: Annotated[int, Ge(0)] | None = None  # bytes


@dataclass(frozen=True)
class KnownModel:
    """A published model that one of the encoders can load."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    encoder: Literal["clip", "clap", "imagebind", "languagebind", "point", "fp32"]
    licence: str
    about: str
    megabytes: Annotated[int, Ge(1)]  # of all its files, roughly (10^6 bytes)
    files: tuple[ModelFile, ...]
    partner: str | None = None  # the encoder whose space this one shares


Known = dict[Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9.-]*$")], KnownModel]


def read_models(path: Path = BUILT_IN) -> dict[str, KnownModel]:
    """The models in a TOML list, by name. Raises InputError with the key of a mistake."""
    try:
        return TypeAdapter(Known).validate_python(read_toml(path, InputError))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}; see docs/models.md") from None


@cache
def known_models() -> dict[str, KnownModel]:
    """The built-in list."""
    return read_models()


def model_folder() -> Path:
    """The folder that holds one folder per model."""
    return Path(os.environ.get(VARIABLE) or "models")


def find_model(name: str, *, encoder: str) -> Path:
    """The folder or file of weights of `encoder:name`: a path, or a name in the model folder.

    Raises InputError if there is neither, with the places searched and the command to get the model.
    """
    if not name:
        raise InputError(f"{encoder}: names no model; write {encoder}:FOLDER, or a name of `unibind models`")
    for path in (Path(name), model_folder() / name):
        if path.exists():
            return path
    known = known_models().get(name)
    how = (
        f"fetch it: unibind models get {name}"
        if known
        else "`unibind models` lists those that can be fetched by name"
    )
    raise InputError(
        f"{encoder}:{name}: there is neither {name} nor {model_folder() / name}; put its folder there"
        f" ({VARIABLE} names another folder), or {how}"
    )


def stated_licence(folder: Path) -> str:
    """The `license:` line at the head of a folder's README.md, as the hub's model cards carry it."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if reading(card).is_file() else ""
    found = re.search(r"\A---\n.*?^license:\s*(\S+)", text, flags=re.DOTALL | re.MULTILINE)
    return found.group(1) if found else NOT_STATED


def licence_of(folder: Path) -> str:
    """The licence in a folder's model card; else that of the known model with the folder's name."""
    known = known_models().get(folder.resolve().name)
    stated = stated_licence(folder)
    return known.licence if stated == NOT_STATED and known else stated


def forbids_commerce(licence: str) -> bool:
    """Whether a licence's name says non-commercial (`cc-by-nc-4.0`) or for research only."""
    words = set(re.split(r"[^a-z]+", licence.lower()))
    return "nc" in words or {"non", "commercial"} <= words or bool(words & {"noncommercial", "research"})


def log_licence(name: str, licence: str) -> None:
    """Log the licence of weights that are loaded, as a warning if it forbids commercial use."""
    if forbids_commerce(licence):
        logger.warning("%s: its weights are licensed %s, not for commercial use", name, licence)
    else:
        logger.info("%s: licence of the weights: %s", name, licence)
