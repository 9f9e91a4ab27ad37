"""The six materials: their physical constants, and how they look.

Mechanical and thermal constants are room-temperature values from M. F. Ashby, "Materials Selection in
Mechanical Design" (4th ed. 2011, appendix A), rounded to the middle of the given ranges. Wood and cork are
anisotropic; the values are isotropic means. Loss factors (tan φ) follow L. Cremer, M. Heckl,
"Structure-Borne Sound" (2nd ed. 1988, table 3.1); listeners identify materials by tan φ: R. L. Klatzky,
D. K. Pai, E. P. Krotkov, "Perception of Material from Contact Sounds" (Presence 9, 2000).
Emissivities (long-wave infrared, normal) follow F. P. Incropera, D. P. DeWitt, "Fundamentals of Heat and Mass
Transfer" (6th ed. 2007, table A.11). Looks (colours, gloss, grain) are free choices of this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rgb = tuple[float, float, float]
Texture = Literal["grain", "brushed", "plain", "clear", "speckle", "granule"]


@dataclass(frozen=True, slots=True)
class Variety:
    """One kind of a material, such as oak among woods."""

    name: str
    colour_word: str
    light: Rgb  # linear reflectance of the brighter part of the texture; of glass: transmittance per 5 cm
    dark: Rgb  # and of the darker part
    texture: Texture


@dataclass(frozen=True, slots=True)
class Material:
    """Constants of one material, in SI units."""

    name: str  # the adjective of the category name
    density: float  # kg/m³
    young: float  # Pa
    poisson: float
    loss: float  # tan φ, the loss factor of vibrations
    conductivity: float  # W/(m·K)
    specific_heat: float  # J/(kg·K)
    emissivity: float
    scan_reflectance: float  # share of a scanner's beam that comes back diffusely
    roughness: float  # m, standard deviation of the surface's height
    f0: float  # mirror reflectance at normal incidence (Schlick's F0)
    gloss: float  # strength of the light's highlight
    shininess: float  # Blinn–Phong exponent of that highlight
    varieties: tuple[Variety, ...]

    @property
    def shear_speed(self) -> float:
        """Speed of shear waves in m/s: √(G/ρ) with G = E / (2 (1 + ν))."""
        return math.sqrt(self.young / (2 * (1 + self.poisson)) / self.density)

    @property
    def effusivity(self) -> float:
        """Thermal effusivity √(kρc) in W·√s/(m²·K): how slowly the surface warms."""
        return math.sqrt(self.conductivity * self.density * self.specific_heat)


MATERIALS: tuple[Material, ...] = (
    Material(
        name="wooden", density=680, young=3.0e9, poisson=0.35, loss=0.018,
        conductivity=0.17, specific_heat=1900, emissivity=0.90,
        scan_reflectance=0.5, roughness=1.5e-4, f0=0.03, gloss=0.10, shininess=25,
        varieties=(
            Variety("oak", "honey-brown", (0.52, 0.33, 0.15), (0.27, 0.14, 0.055), "grain"),
            Variety("walnut", "dark brown", (0.24, 0.125, 0.06), (0.09, 0.042, 0.02), "grain"),
            Variety("pine", "pale yellow", (0.72, 0.52, 0.27), (0.50, 0.28, 0.10), "grain"),
            Variety("cherry", "reddish brown", (0.45, 0.20, 0.09), (0.24, 0.085, 0.035), "grain"),
        ),
    ),
    Material(
        name="steel", density=7850, young=200e9, poisson=0.29, loss=0.0006,
        conductivity=20.0, specific_heat=480, emissivity=0.18,
        scan_reflectance=0.12, roughness=2.0e-5, f0=0.62, gloss=1.2, shininess=220,
        varieties=(
            Variety("polished", "silvery", (0.63, 0.64, 0.66), (0.58, 0.59, 0.61), "plain"),
            Variety("brushed", "silver-grey", (0.58, 0.58, 0.59), (0.40, 0.40, 0.41), "brushed"),
            Variety("blued", "blue-grey", (0.36, 0.41, 0.50), (0.26, 0.30, 0.38), "brushed"),
        ),
    ),
    Material(
        name="rubber", density=1150, young=45e6, poisson=0.48, loss=0.22,
        conductivity=0.16, specific_heat=1800, emissivity=0.93,
        scan_reflectance=0.10, roughness=1.0e-4, f0=0.02, gloss=0.05, shininess=6,
        varieties=(
            Variety("black", "black", (0.028, 0.028, 0.030), (0.020, 0.020, 0.022), "plain"),
            Variety("red", "brick red", (0.36, 0.040, 0.030), (0.30, 0.032, 0.024), "plain"),
            Variety("blue", "deep blue", (0.030, 0.075, 0.31), (0.024, 0.060, 0.26), "plain"),
            Variety("green", "dark green", (0.030, 0.19, 0.065), (0.024, 0.16, 0.052), "plain"),
        ),
    ),
    Material(
        name="glass", density=2500, young=70e9, poisson=0.22, loss=0.0022,
        conductivity=1.0, specific_heat=820, emissivity=0.92,
        scan_reflectance=0.05, roughness=1.0e-5, f0=0.043, gloss=1.6, shininess=500,
        varieties=(
            Variety("clear", "colourless", (0.96, 0.98, 0.97), (0.96, 0.98, 0.97), "clear"),
            Variety("bottle-green", "green", (0.52, 0.86, 0.60), (0.52, 0.86, 0.60), "clear"),
            Variety("sea-blue", "pale blue", (0.60, 0.84, 0.94), (0.60, 0.84, 0.94), "clear"),
            Variety("amber", "amber", (0.93, 0.70, 0.34), (0.93, 0.70, 0.34), "clear"),
        ),
    ),
    Material(
        name="stone", density=2650, young=50e9, poisson=0.23, loss=0.007,
        conductivity=2.8, specific_heat=800, emissivity=0.94,
        scan_reflectance=0.35, roughness=4.0e-4, f0=0.02, gloss=0.04, shininess=10,
        varieties=(
            Variety("granite", "speckled grey", (0.52, 0.51, 0.50), (0.055, 0.055, 0.06), "speckle"),
            Variety("pink granite", "speckled pink", (0.58, 0.37, 0.31), (0.085, 0.075, 0.075), "speckle"),
            Variety("basalt", "dark grey", (0.17, 0.17, 0.175), (0.045, 0.045, 0.05), "speckle"),
            Variety("sandstone", "sandy", (0.62, 0.50, 0.34), (0.36, 0.27, 0.17), "speckle"),
        ),
    ),
    Material(
        name="cork", density=190, young=30e6, poisson=0.10, loss=0.11,
        conductivity=0.045, specific_heat=1900, emissivity=0.92,
        scan_reflectance=0.4, roughness=6.0e-4, f0=0.01, gloss=0.0, shininess=5,
        varieties=(
            Variety("fine-grained", "light tan", (0.60, 0.40, 0.22), (0.24, 0.12, 0.055), "granule"),
            Variety("coarse", "tan", (0.52, 0.33, 0.17), (0.13, 0.062, 0.03), "granule"),
            Variety("toasted", "dark tan", (0.30, 0.17, 0.085), (0.075, 0.036, 0.018), "granule"),
        ),
    ),
)  # fmt: skip
BY_NAME: dict[str, Material] = {material.name: material for material in MATERIALS}
