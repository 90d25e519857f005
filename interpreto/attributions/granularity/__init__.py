"""Granularity: the units of a sample that get a score."""

import inspect
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from interpreto.attributions.granularity import image, segmentation, text
from interpreto.attributions.granularity.image import Grid, Patches, Pixels
from interpreto.attributions.granularity.segments import Segments
from interpreto.attributions.granularity.units import UnitReduction, Units
from interpreto.errors import OptionError, choices


class Granularity(StrEnum):
    """The named granularities of texts and images."""

    ALL_TOKENS = "all-tokens"
    TOKEN = "token"
    WORD = "word"
    CLAUSE = "clause"
    SENTENCE = "sentence"
    PIXEL = "pixel"
    PATCH = "patch"


@runtime_checkable
class UnitSegmenter(Protocol):
    """Divides a sample into units. Any object with these two methods can be passed as `granularity=`."""

    def units(self, sample: Any) -> Units:
        """The units, as an index from positions to units."""
        ...

    def labels(self, sample: Any) -> Any:
        """What represents each unit to the user: pieces of text, or boxes `g 4` in pixels of the raw image."""
        ...


KNOWN: dict[str, dict[Granularity, UnitSegmenter]] = {
    "text": {
        Granularity.ALL_TOKENS: text.Tokens(added=True),
        Granularity.TOKEN: text.Tokens(),
        Granularity.WORD: text.Spans("word", segmentation.words),
        Granularity.CLAUSE: text.Spans("clause", segmentation.clauses),
        Granularity.SENTENCE: text.Spans("sentence", segmentation.sentences),
    },
    "image": {Granularity.PIXEL: Pixels(), Granularity.PATCH: Patches()},
}


_SYNONYMS = {"part-sentence": "clause"}
_CLASSES = {"text": (text.Tokens, text.Spans, Segments), "image": (Grid, Patches, Pixels)}


def resolve(granularity: object, modality: str, option: str = "") -> UnitSegmenter:
    """Resolve the option `granularity`, a name or a segmenter, to a segmenter.

    Args:
        granularity: The name or segmenter.
        modality: "text" or "image".
        option: The option as a message shows it; empty for `granularity=`.

    Raises:
        OptionError: if the modality does not have it; the message lists the granularities of the modality.
    """
    if not isinstance(granularity, str):
        if inspect.isclass(granularity):
            raise OptionError(
                f"granularity={granularity.__name__} is a class; pass an instance: {granularity.__name__}(...)."
            )
        # Segmenters of both modalities have the same methods, so the protocol alone would accept one of the other.
        other = next(
            (kind for kind, classes in _CLASSES.items() if kind != modality and isinstance(granularity, classes)), None
        )
        if other is not None:
            option = option or f"granularity={granularity!r}"
            raise OptionError(f"{option} is for {other}s; this model reads {modality}s.")
        if isinstance(granularity, UnitSegmenter):
            return granularity
        raise OptionError(f"granularity={granularity!r} is neither a name nor an object with units() and labels().")
    name = granularity.lower().replace("_", "-")
    name = _SYNONYMS.get(name, name)
    segmenters = KNOWN[modality]
    if name in segmenters:
        return segmenters[Granularity(name)]
    if name in list(Granularity):
        message = (
            f"granularity={granularity!r} is not a granularity of {modality}s: choose from "
            f"{', '.join(map(repr, map(str, segmenters)))}."
        )
        raise OptionError(message)
    raise OptionError(f"There is no granularity={granularity!r}: {choices(name, segmenters)}")


def default_segmenter(sample: object, modality: str, cost_independent_of_units: bool) -> UnitSegmenter:
    """The default granularity of a sample.

    Args:
        sample: The prepared sample.
        modality: "text" or "image".
        cost_independent_of_units: Whether the number of evaluations does not depend on the number of units, as with
            gradients.
    """
    defaults = {"text": text.default_segmenter, "image": image.default_segmenter}
    return defaults[modality](sample, cost_independent_of_units)


def of_layer_map(chosen: UnitSegmenter, units: Units, shape: tuple[int, ...]) -> UnitSegmenter:
    """The granularity that reports a layer's map at its own resolution.

    Args:
        chosen: The segmenter of the sample.
        units: The units that it made.
        shape: The shape of the map.

    Returns:
        A grid of the map's shape, or `chosen` if the units have that shape already.
    """
    return Grid(*shape) if len(shape) == 2 and shape != units.shape else chosen


@dataclass(frozen=True)
class DefaultGranularity:
    """The default granularity for methods whose cost grows with the number of units, so that methods can be compared.

    Gradient methods would score pixels by default, and perturbation methods a coarser grid.

    Attributes:
        modality: "text" or "image".
    """

    modality: str

    def segmenter(self, sample: object) -> UnitSegmenter:
        """The granularity of one sample."""
        return default_segmenter(sample, self.modality, cost_independent_of_units=False)


def name_of(chosen: UnitSegmenter) -> str:
    """A granularity's name, or the repr of its segmenter."""
    names = (name for segmenters in KNOWN.values() for name, segmenter in segmenters.items() if segmenter == chosen)
    return str(next(names, chosen))


__all__ = [
    "Granularity",
    "Grid",
    "Patches",
    "Pixels",
    "Segments",
    "UnitReduction",
    "UnitSegmenter",
    "Units",
    "default_segmenter",
    "name_of",
    "resolve",
]
