"""Captions of scenes with two objects: random true captions, and the scenes for which a caption is true."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interpreto.zoo.scenes import COLOURS, KINDS, TEXTURES, Scene

SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
_COLOURS = tuple(COLOURS)
_MIN_DISTANCE = 8.0
"""Minimum distance of two centres along an axis, in pixels, for one to be left of, or above, the other."""
_ANY = -1
"""Index of an attribute that a caption does not mention."""


@dataclass(frozen=True)
class Named:
    """A noun phrase for an object: indices into the words for kinds, colours and sizes, -1 for those not mentioned."""

    kind: int
    colour: int
    size: int

    def __str__(self) -> str:
        words = ["" if self.size == _ANY else SIZES[self.size], "" if self.colour == _ANY else _COLOURS[self.colour]]
        noun = "shape" if self.kind == _ANY else KINDS[self.kind]
        return " ".join(["a", *filter(None, words), noun])


@dataclass(frozen=True)
class Caption:
    """A caption of one object, optionally on a background, or of two objects, optionally with a spatial relation."""

    first: Named
    second: Named | None = None
    relation: int = _ANY
    texture: int = _ANY
    photo: bool = False

    def __str__(self) -> str:
        text = f"a photo of {self.first}" if self.photo else str(self.first)
        if self.second is not None:
            text += f" {'and' if self.relation == _ANY else RELATIONS[self.relation]} {self.second}"
        return text if self.texture == _ANY else f"{text} on {TEXTURES[self.texture]}"


def related(scene: Scene, first: int) -> list[int]:
    """Indices of the relations that hold from an object of a scene to the other one."""
    (y, x), (other_y, other_x) = scene.shapes[first].centre, scene.shapes[1 - first].centre
    # In the order of `RELATIONS`; y grows downwards.
    distances = (other_x - x, x - other_x, other_y - y, y - other_y)
    return [relation for relation, distance in enumerate(distances) if distance > _MIN_DISTANCE]


def named(scene: Scene, number: int, rng: np.random.Generator | None = None) -> Named:
    """A noun phrase for an object of a scene: its colour and kind, or with `rng` a random choice of its attributes."""
    shape = scene.shapes[number]
    kind, colour, size = KINDS.index(shape.kind), _COLOURS.index(shape.colour), _size(shape.radius)
    if rng is None:
        return Named(kind, colour, _ANY)
    form = rng.random()
    if form < 0.1:
        return Named(kind, _ANY, _ANY)
    if form < 0.2:
        return Named(_ANY, colour, _ANY)
    return Named(kind, colour, size if form > 0.7 else _ANY)


def caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A random caption that is true of a scene."""
    first = int(rng.integers(2))
    form, photo = rng.random(), bool(rng.random() < 0.15)
    subject = named(scene, first, rng)
    if form < 0.4:
        return Caption(subject, photo=photo)
    if form < 0.6:
        return Caption(subject, texture=TEXTURES.index(scene.texture), photo=photo)
    # Objects that are apart on both axes have two relations: a caption names one of them, or says "and" instead.
    relations = related(scene, first)
    relation = int(rng.choice(relations)) if relations and form < 0.85 else _ANY
    return Caption(subject, named(scene, 1 - first, rng), relation, photo=photo)


def truth(
    scenes: list[Scene], captions: list[Caption], left: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "n m"]:
    """How true each caption is of each scene: 0 or 1, or between them if objects are partly masked.

    Args:
        scenes: Scenes of two objects.
        captions: The captions.
        left: The visible share of each object; all visible by default.
    """
    left = np.ones((len(scenes), 2)) if left is None else left
    objects = np.array([[_indices(scene, number) for number in (0, 1)] for scene in scenes])
    textures = np.array([TEXTURES.index(scene.texture) for scene in scenes])
    relations = np.zeros((len(scenes), 2, len(RELATIONS)), bool)
    for row, scene in enumerate(scenes):
        for number in (0, 1):
            relations[row, number, related(scene, number)] = True
    degrees = np.zeros((len(scenes), len(captions)))
    for column, caption in enumerate(captions):
        # Either object of a scene may be the one that the caption names first: the better assignment counts.
        for number in (0, 1):
            degree = _matches(objects[:, number], caption.first) * left[:, number]
            if caption.second is not None:
                degree = degree * _matches(objects[:, 1 - number], caption.second) * left[:, 1 - number]
            if caption.relation != _ANY:
                degree = degree * relations[:, number, caption.relation]
            if caption.texture != _ANY:
                degree = degree * (textures == caption.texture)
            degrees[:, column] = np.maximum(degrees[:, column], degree)
    return degrees


def _indices(scene: Scene, number: int) -> tuple[int, int, int]:
    shape = scene.shapes[number]
    return KINDS.index(shape.kind), _COLOURS.index(shape.colour), _size(shape.radius)


def _size(radius: float) -> int:
    # Small shapes have a radius of at most 10.2, large ones of at least 11.2: see `RADII`.
    return int(radius > 11)


def _matches(objects: Int[np.ndarray, "n 3"], phrase: Named) -> np.ndarray:
    attributes = np.array([phrase.kind, phrase.colour, phrase.size])
    return ((objects == attributes) | (attributes == _ANY)).all(1).astype(float)
