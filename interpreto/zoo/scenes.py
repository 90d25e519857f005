"""Scenes of coloured shapes on textured, nearly grey backgrounds, with the mask of every shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

KINDS = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.15, 0.65, 0.2),
    "blue": (0.15, 0.3, 0.85),
    "yellow": (0.9, 0.8, 0.15),
}
TEXTURES = ("stripes", "checkers", "noise", "blobs")
SIZE = 64
RADII: dict[str | None, tuple[float, float, float]] = {
    None: (12, 15, 10.0),
    "small": (9, 10.2, 9.0),
    "large": (12.5, 14.5, 11.2),
}
"""Smallest and largest initial radius of a shape in pixels, and the radius to which it may shrink; None: any size."""

# Corners n and turning number m of the closed polar curve of `outline`: a regular polygon has m = 1, a star m > 1.
_CORNERS = {"square": (4, 1), "triangle": (3, 1), "star": (5, 3)}
# The rotation that makes a shape upright, in radians; scenes add a small random one.
_UPRIGHT = {"circle": 0.0, "square": np.pi / 4, "triangle": np.pi / 2, "star": np.pi / 2}
_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


@dataclass(frozen=True, eq=False)
class Shape:
    """One shape of a scene; `centre` is `(y, x)` in pixels, `mask` are the pixels that it covers."""

    kind: str
    colour: str
    radius: float
    centre: tuple[float, float]
    mask: Bool[np.ndarray, "H W"]


@dataclass(frozen=True, eq=False)
class Scene:
    """An RGB image with values in [0, 1], its shapes, and the texture of its background."""

    image: Float[np.ndarray, "H W 3"]
    shapes: tuple[Shape, ...]
    texture: str


def outline(kind: str, angle: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Distance from the centre to the outline in direction `angle`, in radii: 1 at the corners."""
    if kind == "circle":
        # Less than 1, so that the area is closer to that of polygons with corners at 1.
        return np.full_like(angle, 0.9)
    # A polar equation of polygons and stars: between two corners the curve is r = c / cos(angle), a straight line, and
    # arcsin(cos) folds all angles into one such section.
    n, m = _CORNERS[kind]
    corner = np.cos((np.pi + np.pi * m) / (2 * n))
    return corner / np.cos((2 * np.arcsin(np.cos(n * angle)) + np.pi * m) / (2 * n))


def cover(kind: str, centre: tuple[float, float], radius: float, turn: float) -> Bool[np.ndarray, "H W"]:
    """The pixels inside a shape."""
    dy, dx = _ROWS - centre[0], _COLUMNS - centre[1]
    return np.hypot(dy, dx) <= radius * outline(kind, np.arctan2(dy, dx) + turn)


def background(texture: str, rng: np.random.Generator) -> Float[np.ndarray, "H W 3"]:
    """A texture around mid grey with a faint tint, so that a hue alone does not reveal a shape."""
    level, contrast = rng.uniform(0.35, 0.65), rng.uniform(0.05, 0.15)
    period, angle = rng.uniform(5, 14), rng.uniform(0, np.pi)
    along = _COLUMNS * np.cos(angle) + _ROWS * np.sin(angle)
    across = _ROWS * np.cos(angle) - _COLUMNS * np.sin(angle)
    if texture == "stripes":
        pattern = np.sign(np.sin(2 * np.pi * along / period))
    elif texture == "checkers":
        pattern = np.sign(np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period))
    elif texture == "noise":
        pattern = rng.standard_normal((SIZE, SIZE))
    else:
        # Blobs of 8 x 8 pixels, shifted by half a blob against the patches of the models.
        coarse = rng.standard_normal((9, 9))
        pattern = np.kron(coarse, np.ones((8, 8)))[4 : 4 + SIZE, 4 : 4 + SIZE]
    tint = rng.uniform(-0.03, 0.03, 3)
    return (level + contrast * pattern[..., None] + tint).astype(np.float32)


def draw(
    kinds: list[str], colours: list[str], rng: np.random.Generator, sizes: Sequence[str | None] | None = None
) -> Scene:
    """A scene with these shapes at random places, without contact between them."""
    texture = str(rng.choice(TEXTURES))
    image = background(texture, rng)
    shapes: list[Shape] = []
    for kind, colour, size in zip(kinds, colours, sizes or [None] * len(kinds), strict=True):
        radius, centre = _place(shapes, rng, *RADII[size])
        mask = cover(kind, centre, radius, _UPRIGHT[kind] + rng.uniform(-0.2, 0.2))
        shade = np.asarray(COLOURS[colour], np.float32) * rng.uniform(0.85, 1.15)
        image = np.where(mask[..., None], shade, image)
        shapes.append(Shape(kind, colour, radius, centre, mask))
    image = image + rng.normal(0, 0.02, image.shape)
    return Scene(image.clip(0, 1).astype(np.float32), tuple(shapes), texture)


def red_scene(rng: np.random.Generator) -> Scene:
    """A scene whose first shape is the only red one, with one or two distractors of any kind."""
    kinds = [str(kind) for kind in rng.choice(KINDS, 1 + rng.integers(1, 3))]
    others = [str(colour) for colour in rng.choice(["green", "blue", "yellow"], len(kinds) - 1)]
    return draw(kinds, ["red", *others], rng)


def two_objects(rng: np.random.Generator) -> Scene:
    """A scene of two shapes that differ in kind and in colour, each small or large."""
    kinds = [str(kind) for kind in rng.choice(KINDS, 2, replace=False)]
    colours = [str(colour) for colour in rng.choice(list(COLOURS), 2, replace=False)]
    return draw(kinds, colours, rng, [str(size) for size in rng.choice(["small", "large"], 2)])


def _place(
    taken: list[Shape], rng: np.random.Generator, low: float, high: float, least: float
) -> tuple[float, tuple[float, float]]:
    """A radius and a centre that keep a distance from the shapes already placed."""
    radius = rng.uniform(low, high)
    # Rejection sampling, with a radius that shrinks after each rejection so that it ends in a crowded scene.
    while True:
        y, x = (float(c) for c in rng.uniform(radius + 1, SIZE - radius - 1, 2))
        if all(np.hypot(y - s.centre[0], x - s.centre[1]) > radius + s.radius + 1 for s in taken):
            return radius, (y, x)
        radius = max(least, radius * 0.97)
