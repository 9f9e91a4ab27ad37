"""Light: the colour that comes along a ray, in linear RGB.

Lambert's law for what is diffuse, Blinn–Phong for the highlight (J. F. Blinn, SIGGRAPH 1977), Schlick's
approximation for Fresnel reflection (C. Schlick, Eurographics 1994), Snell's and the Beer–Lambert law inside
glass, and one bounce into a simple room for what mirrors. Materials differ by their constants only
(`data.tabletop.materials`): nothing here knows a category.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.tabletop.scene import (
    FAR,
    Body,
    Bool,
    Camera,
    cast,
    is_blocked,
    normals,
    pixel_centres,
    rays,
    table_distance,
)
from data.tabletop.shapes import F32, dot, f32, pick, put, row_by_row, spread, unit
from data.tabletop.textures import albedo, table_pattern

GLASS_INDEX = np.float32(1.52)  # refractive index of soda-lime glass
INNER_BOUNCES = 3  # reflections inside glass before the light is let out anyway
LAMP_WIDTH = np.float32(0.06)  # tangent of half the angle under which the lamp is seen
SKIN = np.float32(2e-4)  # m, how far secondary rays start off the surface


@dataclass(frozen=True, slots=True)
class Setting:
    """The room around an object: its light and its table."""

    light_3: F32  # unit vector towards the lamp
    window_3: F32  # and towards the window opposite
    lamp_3: F32  # linear RGB irradiance of a surface that faces it, over π
    ambient_3: F32  # the same of the sky-like light of the room
    table_3: F32  # linear reflectance of the table
    table_offset: float
    wall_3: F32  # linear radiance of the walls


def draw_setting(rng: np.random.Generator, camera_azimuth: float) -> Setting:
    """A random room: a lamp high on either side of the camera, a table and walls of a random colour."""
    side = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.9)
    azimuth, elevation = camera_azimuth + side, rng.uniform(0.6, 1.15)
    flat = np.cos(elevation)
    light = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], np.float32)
    warmth = rng.uniform(-0.06, 0.1)
    table = rng.uniform(0.12, 0.6) * (1 + rng.uniform(-0.3, 0.3, 3))
    return Setting(
        light_3=light,
        window_3=unit(f32([[-light[0], -light[1], 0.45]]))[0],
        lamp_3=f32(rng.uniform(0.75, 1.15) * np.array([1 + warmth, 1, 1 - warmth])),
        ambient_3=f32(rng.uniform(0.22, 0.4) * np.array([1 - warmth / 2, 1, 1 + warmth / 2])),
        table_3=table.astype(np.float32),
        table_offset=float(rng.uniform()),
        wall_3=(rng.uniform(0.25, 0.7) * (1 + rng.uniform(-0.12, 0.12, 3))).astype(np.float32),
    )


def photograph(body: Body, setting: Setting, camera: Camera, *, soft: int) -> F32:
    """Linear RGB [H, W, 3]: one ray a pixel, and four where the object's outline passes.

    `soft` is the number of shadow rays per point, spread over the lamp's width.
    """
    x_N, y_N = pixel_centres(camera)
    colour_N3, solid_N = radiance(body, setting, camera, x_N, y_N, soft=soft)
    solid_HW = solid_N.reshape(camera.height, camera.width)
    edge_HW = np.zeros_like(solid_HW)
    edge_HW[:, 1:] |= solid_HW[:, 1:] != solid_HW[:, :-1]
    edge_HW[:, :-1] |= edge_HW[:, 1:]
    across = solid_HW[1:] != solid_HW[:-1]
    edge_HW[1:] |= across
    edge_HW[:-1] |= across
    edges = np.flatnonzero(edge_HW)
    offsets_42 = f32([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]])  # turned grid
    fine_x, fine_y = (
        (centre_N[edges] + offsets_42[:, axis, None]).ravel() for axis, centre_N in enumerate((x_N, y_N))
    )
    fine_N3, _ = radiance(body, setting, camera, fine_x, fine_y, soft=1)
    put(colour_N3, edges, fine_N3.T.reshape(3, 4, -1).mean(axis=1).T)
    return row_by_row(colour_N3).reshape(camera.height, camera.width, 3)


def radiance(
    body: Body, setting: Setting, camera: Camera, x_N: F32, y_N: F32, *, soft: int
) -> tuple[F32, Bool]:
    """Linear RGB [N, 3] seen through picture points, and whether each shows the object."""
    towards_N3 = rays(camera, x_N, y_N)
    eye_13 = camera.eye_3[None]
    distance_N = cast(body, eye_13, towards_N3)
    solid_N = distance_N < FAR
    colour_N3 = np.empty_like(towards_N3)
    solid, other = np.flatnonzero(solid_N), np.flatnonzero(~solid_N)
    put(colour_N3, other, _surroundings(body, setting, eye_13, pick(towards_N3, other), soft=soft))
    at_solid_N3 = pick(towards_N3, solid)
    points = eye_13 + at_solid_N3 * distance_N[solid, None]
    shade = _glass if body.spec.kind.texture == "clear" else _opaque
    put(colour_N3, solid, shade(body, setting, points, at_solid_N3))
    return colour_N3, solid_N


def to_srgb(linear: F32, *, exposure: float) -> NDArray[np.uint8]:
    """8-bit sRGB (IEC 61966-2-1) of linear light, highlights rolled off softly above 0.8."""
    x = np.maximum(linear * np.float32(exposure), 0).ravel()
    bright = np.flatnonzero(x > 0.8)
    x[bright] = 0.8 + 0.2 * (1 - np.exp(-(x[bright] - 0.8) / 0.2))
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-6) ** (1 / 2.4) - 0.055)
    pixels: NDArray[np.uint8] = np.round(255 * encoded).astype(np.uint8).reshape(linear.shape)
    return pixels


def luminance(linear: F32) -> F32:
    """Relative luminance (ITU-R BT.709) of linear RGB [..., 3]."""
    grey: F32 = linear @ f32([0.2126, 0.7152, 0.0722])
    return grey


def _opaque(body: Body, setting: Setting, points_N3: F32, towards_N3: F32) -> F32:
    stuff = body.spec.stuff
    normals_N3 = normals(body, points_N3)
    local_N3 = body.to_local(points_N3)
    colour_N3 = albedo(body.spec, local_N3)
    facing_N = np.clip(dot(normals_N3, setting.light_3), 0, 1)
    start_N3 = points_N3 + normals_N3 * SKIN
    lit_N = np.zeros_like(facing_N)
    front = np.flatnonzero(facing_N > 0)
    lit_N[front] = ~is_blocked(body, pick(start_N3, front), setting.light_3)
    # Half of the room's light comes from above, half by way of the table, which the object itself darkens.
    upward_N = 0.5 + 0.5 * normals_N3[:, 2]
    from_table = setting.table_3 * (setting.ambient_3 + 0.5 * setting.lamp_3)
    height_N = np.clip(points_N3[:, 2] / np.float32(body.spec.size), 0, 1)
    near_N = (0.3 + 0.7 * height_N)[:, None]
    bounce_N3 = spread(setting.ambient_3, upward_N) + spread(from_table, 1 - upward_N) * near_N
    mirror_N = stuff.f0 + (1 - stuff.f0) * (1 - np.clip(-dot(normals_N3, towards_N3), 0, 1)) ** 5
    metal = stuff.f0 > 0.3
    diffuse_N3 = colour_N3 * (spread(setting.lamp_3, facing_N * lit_N) + bounce_N3)
    half_N3 = unit(setting.light_3 - towards_N3)
    highlight_N = stuff.gloss * np.clip(dot(normals_N3, half_N3), 0, 1) ** np.float32(stuff.shininess) * lit_N
    if metal:
        reflected_N3 = _reflection(body, setting, points_N3, towards_N3, normals_N3)
        tint_N3 = np.clip(colour_N3 + (1 - colour_N3) * (mirror_N[:, None] - stuff.f0), 0, 1)
        return f32(0.12 * diffuse_N3 + tint_N3 * reflected_N3 + spread(setting.lamp_3, highlight_N))
    # Rough surfaces mirror too, but blurred beyond recognition: the room's mean light, scaled by their gloss.
    sheen_N3 = spread(setting.wall_3, mirror_N * min(1.0, 4 * stuff.gloss))
    return f32(diffuse_N3 + sheen_N3 + spread(setting.lamp_3, highlight_N))


def _glass(body: Body, setting: Setting, points_N3: F32, towards_N3: F32) -> F32:
    """Reflection off the front, and what is seen through: refracted in, at most INNER_BOUNCES times reflected
    inside, refracted out. A second entry (through the ring of a torus) is not followed."""
    stuff = body.spec.stuff
    normals_N3 = normals(body, points_N3)
    cosine_N = np.clip(-dot(normals_N3, towards_N3), 0, 1)
    mirror_N = stuff.f0 + (1 - stuff.f0) * (1 - cosine_N) ** 5
    inside_N3, _ = _refract(towards_N3, normals_N3, 1 / GLASS_INDEX)
    at_N3 = points_N3 - normals_N3 * SKIN
    length_N = np.zeros(len(points_N3), np.float32)
    leaving_N3 = inside_N3.copy(order="K")
    todo = np.arange(len(points_N3))
    for bounce in range(INNER_BOUNCES + 1):
        from_N3, along_N3 = pick(at_N3, todo), pick(inside_N3, todo)
        distance = cast(body, from_N3, along_N3)
        distance = np.where(distance < FAR, distance, 0)
        from_N3 = from_N3 + along_N3 * distance[:, None]
        length_N[todo] += distance
        wall = -normals(body, from_N3)
        out, passes = _refract(along_N3, wall, GLASS_INDEX)
        if bounce == INNER_BOUNCES:
            passes[:] = True
        put(leaving_N3, todo[passes], pick(out, np.flatnonzero(passes)))
        put(at_N3, todo, from_N3 + wall * np.where(passes, -SKIN, SKIN)[:, None])
        stays = np.flatnonzero(~passes)
        todo, along_N3, wall = todo[stays], pick(along_N3, stays), pick(wall, stays)
        put(inside_N3, todo, along_N3 - 2 * dot(along_N3, wall)[:, None] * wall)
    tint_3 = np.clip(f32(body.spec.kind.light) * f32(body.spec.hue_gain), 0.02, 0.99)
    through_N3 = (tint_3[:, None] ** (length_N / np.float32(0.05))).T  # Beer–Lambert
    behind_N3 = _surroundings(body, setting, at_N3, unit(leaving_N3), soft=1)
    front_N3 = _reflection(body, setting, points_N3, towards_N3, normals_N3)
    half_N3 = unit(setting.light_3 - towards_N3)
    highlight_N = stuff.gloss * np.clip(dot(normals_N3, half_N3), 0, 1) ** np.float32(stuff.shininess)
    return f32(
        (1 - mirror_N)[:, None] * through_N3 * behind_N3
        + mirror_N[:, None] * front_N3
        + spread(setting.lamp_3, highlight_N)
    )


def _refract(towards_N3: F32, normals_N3: F32, ratio: np.float32) -> tuple[F32, Bool]:
    """Snell's law in vector form, and whether light passes at all; straight on where it does not.

    `normals_N3` point against the ray; `ratio` is the index before over the index behind the surface.
    """
    cosine_N = -dot(towards_N3, normals_N3)
    inner_N = 1 - ratio**2 * (1 - cosine_N**2)
    passes_N = inner_N >= 0
    bend_N = ratio * cosine_N - np.sqrt(np.maximum(inner_N, 0))
    bent_N3 = ratio * towards_N3 + bend_N[:, None] * normals_N3
    return np.where(passes_N[:, None], bent_N3, towards_N3).astype(np.float32), passes_N


def _reflection(body: Body, setting: Setting, points_N3: F32, towards_N3: F32, normals_N3: F32) -> F32:
    """What a mirror at the points would show, the object itself left out."""
    mirrored_N3 = towards_N3 - 2 * dot(towards_N3, normals_N3)[:, None] * normals_N3
    return _surroundings(body, setting, points_N3 + normals_N3 * SKIN, mirrored_N3, soft=1)


def _surroundings(body: Body, setting: Setting, origins_N3: F32, towards_N3: F32, *, soft: int) -> F32:
    """The table, fading into the room with distance, or the room's walls, lamp and window."""
    distance_N = table_distance(origins_N3, towards_N3)
    on_table_N = distance_N < np.float32(3)
    points_N3 = origins_N3 + towards_N3 * np.where(on_table_N, distance_N, 0)[:, None]
    away_N = np.sqrt(points_N3[:, 0] ** 2 + points_N3[:, 1] ** 2)
    table_N = np.where(on_table_N, np.clip((1.8 - away_N) / 1.2, 0, 1), 0).astype(np.float32)[:, None]
    beyond, on_table = np.flatnonzero(table_N[:, 0] < 1), np.flatnonzero(on_table_N)
    colour_N3 = np.zeros_like(towards_N3)
    put(colour_N3, beyond, _room(setting, pick(towards_N3, beyond)) * (1 - table_N[beyond]))
    of_table_N3 = table_N[on_table] * _table(body, setting, pick(points_N3, on_table), soft=soft)
    put(colour_N3, on_table, pick(colour_N3, on_table) + of_table_N3)
    return colour_N3


def _room(setting: Setting, towards_N3: F32) -> F32:
    """Radiance [N, 3] of the room in a direction: walls darker below, a broad lamp, a window opposite."""
    height_N = np.clip(0.5 + 0.5 * towards_N3[:, 2], 0, 1)
    skirting_N = np.clip(1 - np.abs(towards_N3[:, 2] - 0.05) * 9, 0, 1)  # dark furniture along the walls
    wall_N3 = spread(setting.wall_3, 0.35 + 0.9 * height_N) * (1 - 0.75 * skirting_N)[:, None]
    rows_N3 = row_by_row(towards_N3)
    lamp_N = np.clip((dot(rows_N3, setting.light_3) - 0.90) * 18, 0, 1)
    window_N = np.clip((dot(rows_N3, setting.window_3) - 0.93) * 25, 0, 1)
    return f32(wall_N3 + spread(setting.lamp_3, 2.6 * lamp_N) + spread(setting.lamp_3, 1.1 * window_N))


def _table(body: Body, setting: Setting, points_N3: F32, *, soft: int) -> F32:
    """Radiance [N, 3] of the table: lamp with soft shadow, and the room where it is not hidden."""
    # A shadow, with all of its soft edge, lies where the line to the lamp passes the object at some distance.
    offset_N3 = body.centre_3 - points_N3
    squared_N = np.maximum(dot(offset_N3, offset_N3), np.float32(1e-6))
    along_N = dot(offset_N3, setting.light_3)
    near = np.flatnonzero(squared_N - along_N**2 < (body.reach + LAMP_WIDTH * along_N) ** 2)
    near_N3 = pick(points_N3, near)
    lit_N = np.ones(len(points_N3), np.float32)
    for light_3 in _lamp_points(tuple(setting.light_3.tolist()), soft):
        lit_N[near] -= is_blocked(body, near_N3, light_3) / np.float32(soft)
    direct_3 = setting.lamp_3 * setting.light_3[2]
    if body.spec.kind.texture == "clear":  # glass lets most of the light through, in its colour
        direct_N3 = direct_3 * (lit_N[:, None] + spread(f32(body.spec.kind.light), (1 - lit_N) * 0.6))
    else:
        direct_N3 = spread(direct_3, lit_N)
    # Share of the sky that a ball of the object's size hides (I. Quilez, "Sphere ambient occlusion", 2007).
    radius = np.float32(body.spec.size * 0.45)
    hidden_N = offset_N3[:, 2] / np.sqrt(squared_N) * np.minimum(radius**2 / squared_N, 1)
    open_N = f32(1 - np.clip(hidden_N, 0, 0.8))
    light_N3 = direct_N3 + spread(setting.ambient_3, open_N)
    pattern_N = table_pattern(points_N3, setting.table_offset)
    return f32(spread(setting.table_3, pattern_N) * light_N3)


@lru_cache(maxsize=8)  # of a film, all pictures have the same
def _lamp_points(light: tuple[float, float, float], count: int) -> list[F32]:
    """Directions to `count` points of a lamp about 7 degrees wide, on a Vogel spiral."""
    light_3 = f32(light)
    side = np.cross(light_3, (0, 0, 1))
    side = side / np.linalg.norm(side)
    upward = np.cross(side, light_3)
    points = []
    for i in range(count):
        reach, angle = LAMP_WIDTH * np.sqrt(i / count), i * 2.39996
        point = light_3 + reach * (np.cos(angle) * side + np.sin(angle) * upward)
        points.append((point / np.linalg.norm(point)).astype(np.float32))
    return points
