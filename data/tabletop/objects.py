"""The objects of the sample world: one record each, drawn from the seed and the object's id alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from data.sample import Split
from data.tabletop.materials import BY_NAME, MATERIALS, Material, Variety

Shape = Literal["sphere", "cube", "cone", "torus"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

# Each material lends one shape to the unseen categories, the shapes taken in turn. So every material is seen
# in three shapes and every shape in at least four materials: only the pairs are new.
UNSEEN: frozenset[tuple[str, Shape]] = frozenset(
    (material.name, SHAPES[i % len(SHAPES)]) for i, material in enumerate(MATERIALS)
)

_ASPECTS: dict[Shape, tuple[float, float]] = {
    "sphere": (1.0, 1.0),
    "cube": (1.0, 1.0),
    "cone": (0.95, 1.5),  # height over base diameter
    "torus": (0.30, 0.48),  # radius of the tube over radius of the ring
}


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """One thing on the table: its geometry and its material. SI units, angles in radians."""

    seed: int
    index: int  # number within its category
    shape: Shape
    material: str
    variety: int  # index into the material's varieties
    size: float  # largest extent of the upright object along an axis (edge, diameter or height)
    aspect: float  # see _ASPECTS; 1 where the shape has none
    yaw: float  # how it stands on the table
    hue_gain: tuple[float, float, float]  # colour of this piece relative to its variety
    texture_offset: tuple[float, float, float]  # where in the texture's block it was cut
    texture_scale: float
    density_gain: float
    stiffness_gain: float
    loss_gain: float

    @property
    def stuff(self) -> Material:
        """The constants of its material."""
        return BY_NAME[self.material]

    @property
    def kind(self) -> Variety:
        """The variety of its material."""
        return self.stuff.varieties[self.variety]

    @property
    def category_id(self) -> str:
        """Such as "wooden-sphere"."""
        return f"{self.material}-{self.shape}"

    @property
    def object_id(self) -> str:
        """Such as "wooden-sphere-007"."""
        return f"{self.category_id}-{self.index:03d}"

    @property
    def density(self) -> float:
        """Density of this piece in kg/m³."""
        return self.stuff.density * self.density_gain

    @property
    def radius(self) -> float:
        """Radius of the sphere, the cone's base, the torus' ring (to the tube's middle); half an edge."""
        return self.size / 2 / {"cone": max(1.0, self.aspect), "torus": 1 + self.aspect}.get(self.shape, 1.0)

    @property
    def half_height(self) -> float:
        """Half the height of the upright object; its origin lies that high above the table."""
        return (
            self.size
            / 2
            * {"cone": min(1.0, self.aspect), "torus": self.aspect / (1 + self.aspect)}.get(self.shape, 1.0)
        )

    @property
    def volume(self) -> float:
        """Volume in m³."""
        radius, half = self.radius, self.half_height
        volumes: dict[Shape, float] = {
            "sphere": 4 / 3 * math.pi * radius**3,
            "cube": self.size**3,
            "cone": math.pi * radius**2 * (2 * half) / 3,
            "torus": 2 * math.pi**2 * radius * half**2,
        }
        return volumes[self.shape]

    @property
    def mass(self) -> float:
        """Mass in kg."""
        return self.volume * self.density


def category_pairs() -> tuple[tuple[str, Shape], ...]:
    """The material and shape of the 24 categories, in the order of their ids."""
    return tuple(sorted((material.name, shape) for material in MATERIALS for shape in SHAPES))


def random_of(spec: ObjectSpec, purpose: str) -> np.random.Generator:
    """A random generator for one object and purpose, independent of earlier draws and of the process."""
    return _random(spec.seed, spec.object_id, purpose)


def _random(seed: int, object_id: str, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{object_id}/{purpose}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32).tolist())


def draw_object(material: str, shape: Shape, *, index: int, seed: int) -> ObjectSpec:
    """Draw object number `index` of the category `material shape`. Equal arguments give equal objects."""
    rng = _random(seed, f"{material}-{shape}-{index:03d}", "object")
    brightness = rng.uniform(0.8, 1.2)
    hue = brightness * rng.uniform(0.92, 1.08, 3)
    return ObjectSpec(
        seed=seed,
        index=index,
        shape=shape,
        material=material,
        variety=int(rng.integers(len(BY_NAME[material].varieties))),
        size=round(float(rng.uniform(0.06, 0.12)), 4),
        aspect=round(float(rng.uniform(*_ASPECTS[shape])), 3),
        yaw=float(rng.uniform(0, 2 * math.pi)),
        hue_gain=(float(hue[0]), float(hue[1]), float(hue[2])),
        texture_offset=(float(rng.uniform()), float(rng.uniform()), float(rng.uniform())),
        texture_scale=float(rng.uniform(0.8, 1.25)),
        density_gain=float(rng.uniform(0.95, 1.05)),
        stiffness_gain=float(rng.uniform(0.85, 1.15)),
        loss_gain=float(2.0 ** rng.uniform(-0.4, 0.4)),
    )


def split_of(spec: ObjectSpec, *, count: int) -> Split:
    """The split of an object among the `count` of its category.

    An unseen category is all test. Of a seen one about an eighth is val and a quarter is test, one object at
    least for each of the three splits.
    """
    if (spec.material, spec.shape) in UNSEEN:
        return "test"
    val, test = max(1, round(count / 8)), max(1, round(count / 4))
    if spec.index < count - val - test:
        return "train"
    return "val" if spec.index < count - test else "test"
