"""Captions of scenes with two objects: what may be said of a scene, and of which scenes a caption is true."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interpreto.zoo.scenes import COLOURS, KINDS, TEXTURES, Scene

SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
_COLOURS = tuple(COLOURS)
_APART = 8.0
"""Pixels between two centres from which on one is left of the other, or above it."""
_ANY = -1


@dataclass(frozen=True)
class Named:
    """An object as a caption names it: indices into the words of each kind, -1 where it says nothing."""

    kind: int
    colour: int
    size: int

    def __str__(self) -> str:
        words = ["" if self.size == _ANY else SIZES[self.size], "" if self.colour == _ANY else _COLOURS[self.colour]]
        noun = "shape" if self.kind == _ANY else KINDS[self.kind]
        return " ".join(["a", *filter(None, words), noun])


@dataclass(frozen=True)
class Caption:
    """What is said of a scene: one object, perhaps on something, or two, perhaps in a relation."""

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
    """The relations in which an object of a scene stands to the other one."""
    (y, x), (v, u) = scene.shapes[first].centre, scene.shapes[1 - first].centre
    gaps = (u - x, x - u, v - y, y - v)
    return [relation for relation, gap in enumerate(gaps) if gap > _APART]


def named(scene: Scene, number: int, rng: np.random.Generator | None = None) -> Named:
    """An object of a scene by its colour and kind or, where chance decides, by some of what it is."""
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
    """Something that is true of a scene."""
    first = int(rng.integers(2))
    form, photo = rng.random(), bool(rng.random() < 0.15)
    one = named(scene, first, rng)
    if form < 0.4:
        return Caption(one, photo=photo)
    if form < 0.6:
        return Caption(one, texture=TEXTURES.index(scene.texture), photo=photo)
    relations = related(scene, first)
    relation = int(rng.choice(relations)) if relations and form < 0.85 else _ANY
    return Caption(one, named(scene, 1 - first, rng), relation, photo=photo)


def truth(
    scenes: list[Scene], captions: list[Caption], left: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "n m"]:
    """Of which scenes each caption is true; between 0 and 1 where objects are partly hidden.

    Args:
        scenes: Scenes of two objects.
        captions: What is said.
        left: How much is left of each object; all by default.
    """
    left = np.ones((len(scenes), 2)) if left is None else left
    objects = np.array([[_indices(scene, number) for number in (0, 1)] for scene in scenes])
    textures = np.array([TEXTURES.index(scene.texture) for scene in scenes])
    relations = np.zeros((len(scenes), 2, len(RELATIONS)), bool)
    for row, scene in enumerate(scenes):
        for number in (0, 1):
            relations[row, number, related(scene, number)] = True
    found = np.zeros((len(scenes), len(captions)))
    for column, said in enumerate(captions):
        for number in (0, 1):
            fits = _fits(objects[:, number], said.first) * left[:, number]
            if said.second is not None:
                fits = fits * _fits(objects[:, 1 - number], said.second) * left[:, 1 - number]
            if said.relation != _ANY:
                fits = fits * relations[:, number, said.relation]
            if said.texture != _ANY:
                fits = fits * (textures == said.texture)
            found[:, column] = np.maximum(found[:, column], fits)
    return found


def _indices(scene: Scene, number: int) -> tuple[int, int, int]:
    shape = scene.shapes[number]
    return KINDS.index(shape.kind), _COLOURS.index(shape.colour), _size(shape.radius)


def _size(radius: float) -> int:
    return int(radius > 11)


def _fits(objects: Int[np.ndarray, "n 3"], said: Named) -> np.ndarray:
    wanted = np.array([said.kind, said.colour, said.size])
    return ((objects == wanted) | (wanted == _ANY)).all(1).astype(float)
