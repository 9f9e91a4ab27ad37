"""The modalities: guessed from file names, and covered by every table."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.folder.layout import modality_of_folder
from data.manifest.read import read_manifest
from data.modality import EXTENSIONS, MODALITIES, Modality, guess_modality
from data.readers.payload import Payload, Text
from data.render import RENDERERS
from data.tabletop.world import FILES


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("dog.JPG", "image"),
        ("thermal_people.jpg", "thermal"),
        ("event-gerenuk.png", "event"),
        ("scene.tiff", "thermal"),
        ("walk.aedat4", "event"),
        ("event_walk.raw", "event"),
        ("walk.raw", None),  # photos and much else end so
        ("thermal_scan.dat", None),
        ("event_notes.txt", "text"),
        ("README", None),
    ],
)
def test_names_speak_for_modalities(name: str, modality: str | None) -> None:
    """The ending decides; the first word does where the ending alone is not enough."""
    assert guess_modality(Path("folder") / name) == modality


def test_a_tiff_in_colour_is_a_picture(tmp_path: Path) -> None:
    """Its header says so, in either byte order and in BigTIFF; grey ones and what is no TIFF are thermal."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    for number, how in enumerate(({}, {"byteorder": ">"}, {"bigtiff": True}, {"compression": "zlib"})):
        tifffile.imwrite(tmp_path / f"{number}.tif", colours, photometric="rgb", **how)
        assert guess_modality(tmp_path / f"{number}.tif") == "image"
        tifffile.imwrite(tmp_path / f"thermal_{number}.tif", colours, photometric="rgb", **how)
        assert guess_modality(tmp_path / f"thermal_{number}.tif") == "thermal"
    for form in ("CMYK", "P", "YCbCr"):
        Image.fromarray(colours).convert(form).save(tmp_path / f"{form}.tiff")
        assert guess_modality(tmp_path / f"{form}.tiff") == "image"
    for name, grey in (("a", np.uint8), ("b", np.uint16), ("c", np.float32)):
        tifffile.imwrite(tmp_path / f"{name}.tif", colours[:, :, 0].astype(grey))
        assert guess_modality(tmp_path / f"{name}.tif") == "thermal"
    for name, content in (
        ("d", b""),
        ("e", b"II*\0"),
        ("f", b"II*\0\xff\xff\xff\xff"),
        ("g", b"MM\0*" + bytes(99)),
    ):
        (tmp_path / f"{name}.tif").write_bytes(content)
        assert guess_modality(tmp_path / f"{name}.tif") == "thermal"
    assert guess_modality(tmp_path / "absent.tif") == "thermal"


def test_a_manifest_without_modalities_looks_into_its_tiffs(tmp_path: Path) -> None:
    """The file that a row names is looked into; `modality` overrules what it says."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 9), np.uint16))
    (tmp_path / "manifest.csv").write_text("uri,category\na.tif,x\nb.tif,x\n")
    kinds = [sample.modality for sample in read_manifest(tmp_path / "manifest.csv").samples]
    assert kinds == ["image", "thermal"]
    told = read_manifest(tmp_path / "manifest.csv", modality="thermal").samples
    assert [sample.modality for sample in told] == ["thermal", "thermal"]


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_table_covers_every_modality(modality: Modality) -> None:
    """A new modality needs endings, a folder name, and a file of the sample world; readers have their own
    test."""
    assert modality in EXTENSIONS.values()
    assert modality_of_folder(modality) == modality
    assert modality in FILES


def test_every_payload_has_a_rendering() -> None:
    """All records that readers return can be drawn, except texts."""
    assert set(RENDERERS) == set(get_args(Payload)) - {Text}
