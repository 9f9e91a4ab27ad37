"""LLVIP: person or background, in crops of thermal pictures (Jia et al., ICCV Workshops 2021).

LLVIP is a detection dataset. ImageBind (appendix A), whose numbers the paper compares with, classifies crops:
the labelled persons, and as many boxes of the same sizes placed where no person is; 15,809 test crops, 7,931
of them persons. Its boxes were not published; ours are drawn by hash, so they are the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from data.benchmarks.layout import files_in, keep_present, missing_note, require_count, require_folder
from data.benchmarks.record import Benchmark, Imported, Paper, Prepare, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError, SampleError
from data.files import atomic_path
from data.sample import Category, Sample, Split

PICTURES: dict[Split, int] = {"test": 3_463, "train": 12_025}
RECIPE = "crops-1"  # change it with everything that affects the positions of crops
TRIES = 100  # places tried for a background box
_MAX_XML = 1_000_000  # bytes; a real one has a few thousand


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels left … right - 1 and top … bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Box) -> bool:
        """Whether the two boxes share a pixel."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def read_llvip(root: Path, wanted: Wanted) -> Imported:
    """Import LLVIP's crops; their files are made by `Imported.prepare`. Raises ManifestError."""
    infrared = require_folder(root, "infrared", what="the thermal pictures")
    require_folder(root, "Annotations", what="the boxes of the persons")
    samples: list[Sample] = []
    boxes: dict[str, Box] = {}
    sizes: dict[str, tuple[int, int]] = {}  # width and height of each picture, as annotated
    unplaced = 0
    notes: tuple[str, ...] = ()
    for split, expected in PICTURES.items():
        if split == "train" and not wanted.train:
            continue
        folder = require_folder(infrared, split, what=f"the {split} pictures")
        pictures = [Path(name).stem for name in files_in(folder, {".jpg"})]
        require_count(folder, len(pictures), expected, f"{split} pictures (*.jpg)", partial=wanted.partial)
        xmls = [f"Annotations/{picture}.xml" for picture in pictures]
        kept = keep_present(root, xmls, listed_in=folder, partial=wanted.partial, what="annotations")
        notes += missing_note(len(xmls), len(kept), f"{split} annotations")
        for xml in kept:
            picture = Path(xml).stem
            size, persons = read_annotation(root / xml)
            sizes[picture] = size
            for i, person in enumerate(persons):
                background = background_box(person, persons, size, f"{picture}/{i}")
                unplaced += background is None
                for category, box in (("person", person), ("background", background)):
                    if box is not None:
                        uri = f"{split}/{category}/{picture}-{i:02d}.png"
                        # Crops of one picture belong together: they share the scene.
                        sample = Sample(uri, "thermal", uri, split, category, object_id=picture)
                        samples.append(sample)
                        boxes[uri] = box
    if unplaced:
        notes += (f"{unplaced:,} background boxes found no place free of persons",)
    categories = (Category("person", "person"), Category("background", "background"))
    return Imported(tuple(draw_val(samples)), categories, notes, _prepare(infrared, boxes, sizes), RECIPE)


def background_box(person: Box, persons: Sequence[Box], size: tuple[int, int], seed: str) -> Box | None:
    """A box of the person's size within the picture (width, height) that overlaps no person.

    Positions come from the SHA-256 of the seed and the number of the attempt; None after `TRIES` attempts.
    """
    width, height = person.right - person.left, person.bottom - person.top
    for attempt in range(TRIES):
        digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        left = int.from_bytes(digest[:8]) % (size[0] - width + 1)
        top = int.from_bytes(digest[8:16]) % (size[1] - height + 1)
        box = Box(left, top, left + width, top + height)
        if not any(box.meets(each) for each in persons):
            return box
    return None


def read_annotation(path: Path) -> tuple[tuple[int, int], list[Box]]:
    """(width, height) of a picture and the boxes of its persons, clipped to it, from a VOC XML file.

    Boxes outside the picture, or without a pixel, are skipped. Raises ManifestError for anything else than
    VOC.
    """
    try:
        if path.stat().st_size > _MAX_XML:
            raise ManifestError(f"{path}: more than {_MAX_XML:,} bytes is no annotation of one picture")
        tree = ElementTree.parse(path)  # bounded above; expat stops entity bombs
        width, height = (int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
        boxes = []
        for each in tree.iterfind("object"):
            if each.findtext("name", "").strip().lower() != "person":
                continue
            left, top, right, bottom = (
                round(float(each.findtext(f"bndbox/{side}", ""))) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            box = Box(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
            if box.left < box.right and box.top < box.bottom:
                boxes.append(box)
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise ManifestError(f"{path}: expected a VOC annotation (size, object/bndbox): {error}") from None
    return (width, height), boxes


def _prepare(infrared: Path, boxes: dict[str, Box], sizes: dict[str, tuple[int, int]]) -> Prepare:
    """A function that cuts a sample's crop out of its picture and writes it as a grey PNG."""

    @lru_cache(maxsize=4)  # crops of one picture come one after the other
    def grey(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        from data.readers.pictures.image import open_picture

        with open_picture(path) as (picture, _):
            return np.asarray(picture.convert("L"))

    def prepare(sample: Sample, target: Path) -> None:
        from PIL import Image

        split = sample.uri.partition("/")[0]
        source = infrared / split / f"{sample.object_id}.jpg"
        made = target / sample.uri
        if not source.is_file():
            raise SampleError(f"{source}: no such file")
        if made.is_file() and made.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            return
        box = boxes[sample.uri]
        grey_HW = grey(source)
        width, height = sizes[str(sample.object_id)]
        if grey_HW.shape != (height, width):  # the boxes would be in the wrong place
            found = f"{grey_HW.shape[1]} × {grey_HW.shape[0]}"
            raise SampleError(
                f"{source}: {found} pixels, its annotation says {width} × {height}; fetch it again"
            )
        crop_HW = grey_HW[box.top : box.bottom, box.left : box.right]
        with atomic_path(made) as temporary:
            Image.fromarray(crop_HW).save(temporary, format="PNG")

    return prepare


LLVIP = Benchmark(
    name="llvip",
    title="LLVIP",
    modality="thermal",
    classes=2,
    paper=Paper(63.40, 64.67, None, None, base="ImageBind-huge"),
    licence="non-commercial use: research, teaching, publication",
    home="https://bupt-ai-cz.github.io/LLVIP/",
    layout="infrared/{train,test}/*.jpg and Annotations/*.xml (visible/ is not needed)",
    split_rule="the official train and test pictures; val = 10% drawn from train. Crops: every labelled"
    " person, and for each a box of its size where no person is, drawn by hash",
    metric_rule="top-1 over all test crops, person or background",
    read=read_llvip,
)
