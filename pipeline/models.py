"""The model folder: list, download and check models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.errors import InputError, UniBindError
from data.files import hash_file, write_text
from data.lock import write_lock
from kb_builder.weights.known import KnownModel, known_models, model_folder

if TYPE_CHECKING:
    from kb_builder.weights.download import Fetched

SUMS = "SHA256SUMS"  # of what was fetched, in the form of `sha256sum`

State = Literal["there", "in part", "not there"]
Progress = Callable[[str, int, int | None], None]  # file, bytes present, total bytes if known


@dataclass(frozen=True)
class Listed:
    """A known model, or another folder in the model folder; `known` is None for the latter."""

    name: str
    known: KnownModel | None
    folder: Path
    state: State

    def to_text(self) -> str:
        """Two lines for the terminal."""
        if self.known is None:
            return f"{self.name:<24} {'your own':<12} {'':>9}  {self.state:<9}  {self.folder}"
        size = f"{self.known.megabytes:,} MB"
        head = f"{self.name:<24} {self.known.encoder:<12} {size:>9}  {self.state:<9}  {self.known.licence}"
        partner = f"; in the space of {self.known.partner}" if self.known.partner else ""
        return f"{head}\n{'':<24} {self.known.about}{partner}"


def list_models() -> list[Listed]:
    """The known models, then other folders in the model folder, by name."""
    root = model_folder()
    listed = [
        Listed(name, known, root / name, _state(known, root / name)) for name, known in known_models().items()
    ]
    own = sorted(path for path in root.glob("*/") if path.name not in known_models()) if root.is_dir() else []
    return listed + [Listed(path.name, None, path, "there") for path in own]


def _state(known: KnownModel, folder: Path) -> State:
    there = sum((folder / file.path).is_file() for file in known.files)
    if there == len(known.files):
        return "there"
    return "in part" if folder.is_dir() and any(folder.glob("[!.]*")) else "not there"


def get_model(
    name: str, models: dict[str, KnownModel], *, progress: Progress
) -> tuple[Path, dict[str, Fetched]]:
    """Download the missing files of a model into its folder, and store their checksums in SHA256SUMS.

    Returns the folder and the files downloaded now. Raises InputError for an unknown name and as `fetch`
    does, KnowledgeBaseError where another process is downloading the model.
    """
    from kb_builder.weights.download import fetch

    if name not in models:
        raise InputError(f"unknown model {name!r}; known are {', '.join(sorted(models))}")
    folder = model_folder() / name
    fetched: dict[str, Fetched] = {}
    with write_lock(folder / ".lock"):
        sums = read_sums(folder)
        for file in models[name].files:
            target = folder / file.path
            if target.is_file() and file.sha256 in {None, sums.get(file.path)}:
                continue
            if target.is_file() and hash_file(target) == file.sha256:
                sums[file.path] = file.sha256 or ""
            else:
                fetched[file.path] = fetch(file, target, on_bytes=partial(progress, file.path))
                sums[file.path] = fetched[file.path].sha256
            write_text(folder / SUMS, "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)))
    return folder, fetched


def read_sums(folder: Path) -> dict[str, str]:
    """The stored checksums by path; lines of another form are skipped."""
    path = folder / SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {found[2]: found[1] for found in re.finditer(r"^([0-9a-f]{64})  (.+)$", text, re.MULTILINE)}


def check_model(listed: Listed) -> str:
    """Compare a model's files with their checksums, load it and encode a text; returns a line of what it is.

    Raises UniBindError with a line that says what is wrong.
    """
    from kb_builder.encoders import load_encoder, release_encoders

    if listed.state != "there":
        raise InputError(f"{listed.folder}: {listed.state}; download it: unibind models get {listed.name}")
    sums = read_sums(listed.folder)
    for path, noted in sums.items():
        if not (listed.folder / path).is_file() or hash_file(listed.folder / path) != noted:
            raise InputError(
                f"{listed.folder / path}: differs from the downloaded file (SHA-256); remove it, then"
                f" unibind models get {listed.name}"
            )
    family = listed.known.encoder if listed.known else _guess(listed.folder)
    name = f"{family}:{listed.name}"
    try:
        encoder = load_encoder(name, "cpu")
        if "text" in encoder.modalities:  # damaged weights may load but give NaN
            encoder.encode([encoder.prepare("text", "a photo of a dog")])
        return (
            f"{name} loads: {encoder.parameters / 1e6:,.0f} million parameters, {encoder.dim} dimensions,"
            f" {', '.join(sorted(encoder.modalities))}; {len(sums)} checksums match;"
            f" licence {encoder.licence}"
        )
    finally:
        release_encoders()


def _guess(folder: Path) -> str:
    """The encoder family of a folder without an entry in the list."""
    from kb_builder.encoders.clip import KINDS
    from kb_builder.encoders.languagebind.folder import KINDS as TOWERS
    from kb_builder.encoders.paired import read_kind

    if (folder / "modules.json").is_file():  # sentence-transformers
        return "fp32"
    if not (folder / "config.json").is_file() and any(folder.glob("*/config.json")):
        return "languagebind"  # its towers
    takes = {"clap": "clap"} | dict.fromkeys(KINDS, "clip") | dict.fromkeys(TOWERS, "languagebind")
    try:
        return takes[read_kind(folder.name, folder, takes)]
    except UniBindError as error:
        raise InputError(f"{folder}: its files show no known kind of model ({error})") from None
