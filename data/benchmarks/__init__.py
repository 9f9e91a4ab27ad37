"""The twelve benchmarks of UniBind's main table: import their official layouts as samples and categories.

One module each, all of the same form: the layout, the rules, the paper's numbers, and a function that reads a
folder. Errors say in one line what was expected where, and what was found; only lists and annotations are
opened, no media.
"""

from __future__ import annotations

import difflib

from data.benchmarks.imagenet import IMAGENET
from data.benchmarks.llvip import LLVIP
from data.benchmarks.modelnet40 import MODELNET40
from data.benchmarks.msrvtt import MSRVTT
from data.benchmarks.ncaltech101 import N_CALTECH101
from data.benchmarks.nimagenet import N_IMAGENET
from data.benchmarks.places365 import PLACES365
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.rgbt import RGB_T
from data.benchmarks.shapenet import SHAPENET
from data.benchmarks.sounds import ESC50, URBANSOUND8K
from data.benchmarks.ucf101 import UCF101
from data.errors import InputError

# In the order of the paper's table.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        IMAGENET,
        PLACES365,
        MODELNET40,
        SHAPENET,
        ESC50,
        URBANSOUND8K,
        LLVIP,
        RGB_T,
        MSRVTT,
        UCF101,
        N_CALTECH101,
        N_IMAGENET,
    )
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name in any spelling (`ESC50`, `esc-50`). Raises InputError for an unknown one."""
    plain = {"".join(filter(str.isalnum, known)): known for known in BENCHMARKS}
    asked = "".join(filter(str.isalnum, name.casefold()))
    if asked not in plain:
        close = [each for each in plain if asked and each.startswith(asked)]
        close = close or difflib.get_close_matches(asked, plain, n=2, cutoff=0.8)
        meant = " or ".join(repr(plain[each]) for each in close)
        hint = f"did you mean {meant}?" if close else f"known: {', '.join(BENCHMARKS)}"
        raise InputError(f"there is no benchmark {name!r}; {hint}")
    return BENCHMARKS[plain[asked]]


__all__ = ["BENCHMARKS", "Benchmark", "Imported", "Paper", "Wanted", "find_benchmark"]
