"""The class of hardware that made each part: vectors have the same bits within one, and may differ between.

A part has the same bytes in any process, on any number of threads, killed and resumed or not. Another
instruction set or another GPU rounds differently. So a hidden note beside each part, `.<part>.hardware`,
holds the class that made it in one line. No byte of a part or a manifest depends on it, and a note that is
lost only makes the class unknown.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from data.errors import InputError
from data.files import write_text
from data.special_files import open_regular
from kb_builder.encoders import ON_CPU

UNKNOWN = "unknown"  # of parts that an earlier version made, or whose note is lost
_ENDING = ".hardware"


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
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        try:
            with open_regular(_note(folder / name)) as file:
                made = file.read().decode().strip()
        except (OSError, ValueError):
            made = UNKNOWN
        found.setdefault(made, []).append(name)
    return dict(sorted(found.items()))


def require_one_class(folder: Path, found: dict[str, list[str]]) -> None:
    """Raise InputError where several classes of hardware made the parts of a table."""
    if len(found) > 1:
        counts = "; ".join(f"{len(names):,} by {each}" for each, names in found.items())
        raise InputError(
            f"{folder}: its parts were made by several classes of hardware ({counts}), and [run]"
            " same_hardware = true; delete the parts of all but one class (the notes"
            f" `.*{_ENDING}` beside them say which) and run `unibind encode` on machines of that class"
        )


def forget_classes(folder: Path, names: Iterable[str]) -> None:
    """Remove the notes of parts that are not among these."""
    kept = {_note(folder / name) for name in names}
    for note in folder.glob(f".*{_ENDING}"):
        if note not in kept:
            note.unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(f".{part.stem}{_ENDING}")
