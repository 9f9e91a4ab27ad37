"""The class of hardware that made each part: vectors have the same bits within one, and may differ between.

A part has the same bytes in any process, on any number of threads, killed and resumed or not. Another
instruction set or another GPU rounds differently. `hardware.json` beside a table's manifest says which class
made each part:

    format, parts: {class: [names of parts, ascending]}

Until the table is committed, each new part has a note of its own, `.<part>.made`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data.errors import InputError
from data.files import write_json, write_text
from kb_builder.encoders import ON_CPU

HARDWARE = "hardware.json"
UNKNOWN = "unknown"  # of parts that an earlier version made
FORMAT = 1


def hardware_class(encoder: str, device: str) -> str:
    """The class of hardware that runs an encoder here, such as "x86_64 GenuineIntel AVX512, torch 2.13.0".

    `encoder` and `device` are those of `load_encoder`.
    """
    import torch

    from kb_builder.encoders.devices import device_names

    names = () if encoder.partition(":")[0] in ON_CPU else device_names(device)
    gpus = {torch.cuda.get_device_name(name) for name in names if name.startswith("cuda")}
    return f"{', '.join(sorted(gpus)) or _processor()}, torch {torch.__version__}"


@cache
def _processor() -> str:
    import torch

    vendor = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        vendor = next(line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    except (OSError, StopIteration):
        vendor = platform.processor()
    words = (platform.machine(), vendor, torch.backends.cpu.get_cpu_capability())
    return " ".join(word for word in words if word)


def note_class(part: Path, hardware: str) -> None:
    """Write beside a new part which class of hardware made it."""
    write_text(_note(part), hardware + "\n")


def classes(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """The names of parts by the class of hardware that made them, both ascending."""
    known = _read(folder)
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        try:
            made = _note(folder / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            made = known.get(name, "")
        found.setdefault(made or UNKNOWN, []).append(name)
    return dict(sorted(found.items()))


def require_one_class(folder: Path, found: dict[str, list[str]]) -> None:
    """Raise InputError where several classes of hardware made the parts of a table."""
    if len(found) > 1:
        counts = "; ".join(f"{len(names):,} by {each}" for each, names in found.items())
        raise InputError(
            f"{folder}: its parts were made by several classes of hardware ({counts}), and [run]"
            " same_hardware = true; delete the parts of all but one class (`hardware.json` and the notes"
            " `.*.made` name them) and run `unibind encode` on machines of that class"
        )


def commit_classes(folder: Path, found: dict[str, list[str]]) -> None:
    """Write `hardware.json` for a committed table, and remove the notes of single parts."""
    if found:
        write_json(folder / HARDWARE, {"format": FORMAT, "parts": found})
    else:
        (folder / HARDWARE).unlink(missing_ok=True)
    for note in folder.glob(".*.made"):
        note.unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f".{part.name}.made")


def _read(folder: Path) -> dict[str, str]:
    """The class of each part that `hardware.json` names; empty if it is missing or damaged."""
    try:
        parts = json.loads((folder / HARDWARE).read_text(encoding="utf-8"))["parts"]
        return {name: each for each, names in parts.items() for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
