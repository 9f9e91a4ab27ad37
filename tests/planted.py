"""The small project that tests of the Python API, the examples and the docs run: cups and balls.

Forty-eight pictures and twelve notes of six categories, one of them without a train sample. Its describer is
the fake one and its encoder that of examples/own_encoder.py, so that no model is loaded and a whole run takes
seconds.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

EXAMPLES = Path(__file__).parents[1] / "examples"
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200)}
SHAPES = ("cup", "ball")
UNSEEN = "blue ball"
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
