"""The thermal picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from data.tabletop.objects import draw_object
from data.tabletop.scene import solid_of
from data.tabletop.shapes import f32
from data.tabletop.thermal import HEIGHT, LOSS, WIDTH, _apparent, take_thermal, warming, write_thermal


@pytest.mark.parametrize("effusivity", [124.0, 500.0, 2500.0])
def test_warming_is_the_solution_of_the_heat_equation(effusivity: float) -> None:
    """The closed form agrees with a finite-difference slab under a constant flux with Newton cooling."""
    conductivity, flux, seconds = 1.0, 900.0, 60.0
    heat_capacity = effusivity**2 / conductivity  # ρc
    depth = 8 * np.sqrt(conductivity / heat_capacity * seconds)
    cells = 160
    width = depth / cells
    steps = int(np.ceil(seconds / (0.4 * width**2 * heat_capacity / conductivity)))
    step = seconds / steps
    kelvin = np.zeros(cells)
    for _ in range(steps):
        surface = (
            kelvin[0] + (flux - LOSS * kelvin[0]) * width / 2 / conductivity
        )  # half a cell above its middle
        flow = conductivity * np.diff(kelvin) / width
        gain = np.concatenate([[flux - LOSS * surface], -flow]) - np.concatenate([-flow, [0.0]])
        kelvin += gain * step / (width * heat_capacity)
    surface = kelvin[0] + (flux - LOSS * kelvin[0]) * width / 2 / conductivity
    found = warming(f32([flux]), effusivity=effusivity, seconds=seconds)[0]
    assert found == pytest.approx(surface, rel=0.01)


def test_a_black_body_looks_as_warm_as_it_is_and_a_mirror_as_what_it_mirrors() -> None:
    """With ε = 1 the apparent temperature is the own one, with ε = 0 the mirrored one, else between them."""
    own = f32([320.0])
    assert _apparent(own, 1.0, 280.0)[0] == pytest.approx(320)
    assert _apparent(own, 0.0, 280.0)[0] == pytest.approx(280)
    assert 280 < _apparent(own, 0.5, 280.0)[0] < 320


def test_the_file_is_centikelvin_and_says_so(tmp_path: Path) -> None:
    """16-bit pixels over 100 are kelvin, and the description names the unit; equal objects, equal bytes."""
    spec = draw_object("cork", "sphere", index=0, seed=0)
    write_thermal(spec, solid_of(spec), tmp_path / "a.tiff")
    write_thermal(spec, solid_of(spec), tmp_path / "b.tiff")
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        page = file.pages[0]
        assert "0.01 K" in page.tags["ImageDescription"].value
        pixels = page.asarray()
    assert pixels.dtype == np.uint16
    assert pixels.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(pixels / 100, take_thermal(spec, solid_of(spec)), atol=0.0051)
    assert 285 < pixels.min() / 100 < pixels.max() / 100 < 400


def test_cork_gets_hotter_than_stone_and_steel_hides_its_warmth() -> None:
    """What warms fast looks hot; polished metal shows the room instead."""
    hottest = {}
    for material in ("cork", "wooden", "stone", "steel"):
        objects = [draw_object(material, "cube", index=i, seed=0) for i in range(4)]
        middles = [take_thermal(o, solid_of(o))[HEIGHT // 2 - 10 : HEIGHT // 2 + 10, 60:100] for o in objects]
        hottest[material] = float(np.mean([middle.max() for middle in middles]))
    assert hottest["cork"] > hottest["wooden"] + 5 > hottest["stone"] + 8
