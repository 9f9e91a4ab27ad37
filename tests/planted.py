"""The small project that tests of the Python API, the examples and the docs run: cups and balls.

Forty-eight pictures and twelve notes of six categories, one of them without a train sample. Its describer is
the fake one and its encoder that of examples/own_encoder.py, so that no model is loaded and a whole run takes
seconds.

Also here: what tests/trainer and tests/pipeline write their planted knowledge bases with. Vectors there are
drawn at random around planted meanings, so that no encoder runs.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from data.files import hash_file, write_json
from data.tabletop.settings import TabletopSettings
from kb_builder.store.table import write_vectors
from kb_builder.tables.schemas import CATEGORIES, DESCRIPTIONS, write_table

EXAMPLES = Path(__file__).parents[1] / "examples"
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200)}
SHAPES = ("cup", "ball")
UNSEEN = "blue ball"
# As few objects and as small files as there can be.
SMALL_WORLD = TabletopSettings(objects_per_category=3, image_px=32, video_px=32, video_frames=4, points=128)
PROJECT = """\
name = "cups"
seed = 1

[data]
manifest = "samples.csv"

[describe.categories]
describer = "fake"
n = 4
near_cosine = "off"
contrast_pairs = 0

[encode]
text = "words"
samples = "words"
zero_shot = "off"
device = "cpu"

[localize]
k = 3

[train]
epochs = 40
device = "cpu"

[evaluate]
bootstrap = 20
few_shot = []
sweeps = false
probe = false
baselines = false
stacking_folds = 0
repeats = 0
"""


def plant_project(folder: Path) -> Path:
    """Write the project and its files into a folder, and register its encoder; returns the project file."""
    register_encoder()
    media = folder / "media"
    media.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for colour in COLOURS:
        for shape in SHAPES:
            category = f"{colour} {shape}"
            for number in range(8):
                split = "train" if number < 5 else "val" if number == 5 else "test"
                split = "test" if category == UNSEEN else split
                thing = f"{colour}-{shape}-{number}"
                _draw(COLOURS[colour], shape, rng).save(media / f"{thing}.png")
                rows.append((thing, f"media/{thing}.png", "image", category, split, thing))
                if number in (0, 7):
                    (media / f"{thing}.txt").write_text(f"A {category} on a table, number {number}.", "utf-8")
                    rows.append((f"{thing}-note", f"media/{thing}.txt", "text", category, split, thing))
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sample_id", "uri", "modality", "category", "split", "object_id"))
        writer.writerows(rows)
    path = folder / "unibind.toml"
    path.write_text(PROJECT, encoding="utf-8")
    return path


def register_encoder() -> None:
    """Make the encoder `words` of examples/own_encoder.py known to this process."""
    from kb_builder.encoders import FACTORIES

    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    FACTORIES["words"] = "own_encoder:load_words"


def time_parts(project: Path) -> Path:
    """Give `described` (tests/pipeline/conftest.py) parts of a tenth of a millisecond, not of some rows."""
    text = project.read_text(encoding="utf-8")
    rows = "texts_per_part = 4\nsamples_per_part = 5"
    assert rows in text
    project.write_text(text.replace(rows, "part_seconds = 0.0001"), encoding="utf-8")
    return project


def copy_rates(project: Path, other: Path) -> list[str]:
    """Give a project the rates that another one has measured; their names."""
    kb, place = (path.parent / "runs" / "cups" / "kb" for path in (project, other))
    rates = sorted(kb.glob("embeddings/*/rate-*.json"))
    for path in rates:
        copy = place / path.relative_to(kb)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return [path.name for path in rates]


def vector_files(project: Path) -> dict[str, str]:
    """Every file of a project's knowledge base with its SHA-256, the ledger and its lock apart."""
    kb = project.parent / "runs" / "cups" / "kb"
    found = (path for path in kb.rglob("*") if path.is_file() and not path.name.startswith("ledger."))
    return {path.relative_to(kb).as_posix(): hash_file(path) for path in found}


def _draw(colour: tuple[int, int, int], shape: str, rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (48, 48), (225, 222, 214))
    left, top = rng.integers(5, 9, 2).tolist()
    box = (left, top, left + 34, top + 34)
    draw = ImageDraw.Draw(picture)
    shade = tuple(int(channel + rng.integers(-15, 15)) for channel in colour)
    if shape == "ball":
        draw.ellipse(box, fill=shade)
    else:
        draw.rectangle(box, fill=shade)
    return picture


def description_row(row_id: str, *, filler: str = "x", **fields: Any) -> dict[str, Any]:
    """A whole row of the descriptions table: `ok`, its id as its text; what is not given is empty by kind."""
    row: dict[str, Any] = {"row_id": row_id, "text": row_id, "status": "ok", **fields}
    for column in DESCRIPTIONS:
        empty = filler if pa.types.is_string(column.type) else 0
        row.setdefault(column.name, None if column.nullable else empty)
    return row


def write_categories(kb: Path, names: Mapping[str, str]) -> None:
    """The table of categories: id -> name."""
    rows = [
        {"category_id": category, "name": name, "aliases": [], "parent": None, "notes": None}
        for category, name in names.items()
    ]
    write_table(kb / "categories.parquet", rows, CATEGORIES)


def write_store(
    kb: Path,
    tables: Mapping[str, Sequence[tuple[str, str, np.ndarray]]],
    roles: Mapping[str, str | None],
    parameters: Mapping[str, int],
) -> None:
    """The embedding store.

    `tables`: "<encoder's folder>/<table>" -> (id, group, vector) of each row. `roles`: text, samples,
    zero_shot -> an encoder's folder or None. `parameters`: folder -> how many the encoder has.
    """
    for place, rows in tables.items():
        ids, groups, vectors = zip(*rows, strict=True)
        write_vectors(kb / "embeddings" / place, ids=ids, groups=groups, vectors_ND=np.stack(vectors))
    for folder, count in parameters.items():
        write_json(kb / "embeddings" / folder / "encoder.json", {"name": folder, "parameters": count})
    write_json(kb / "embeddings" / "encoders.json", dict(roles))
