"""XRAI's ranking: regions are added one by one, those with the highest attribution per pixel first."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int

from interpreto.attributions.granularity.regions import Regions


@final
@dataclass(frozen=True, eq=False)
class Ranked:
    """The score and the rank of every pixel.

    Attributes:
        gains: The mean attribution of the pixels that were added together with a pixel.
        ranks: The rank of a pixel's segment in descending order of gains, from 1. Every pixel belongs to one segment.
    """

    gains: Float[np.ndarray, "H W"]
    ranks: Int[np.ndarray, "H W"]


@dataclass(eq=False)
class _Cover:
    """The part of the image that is covered so far, and the segments that cover it.

    Attributes:
        attribution: The attribution of every pixel.
        added: The new pixels of each segment, in the order in which segments were added.
        gains: Their mean attributions.
    """

    attribution: Float[np.ndarray, " s"]
    added: list[Int[np.ndarray, " _s"]] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = np.ones(len(self.attribution), dtype=bool)

    @property
    def share(self) -> float:
        return 1 - float(self.free.mean())

    def add(self, pixels: Int[np.ndarray, " _s"]) -> None:
        self.added.append(pixels)
        self.gains.append(float(self.attribution[pixels].mean()))
        self.free[pixels] = False

    def ranked(self, size: tuple[int, int]) -> Ranked:
        """The ranks of all pixels; those that no segment covers are the last segment, with their own mean."""
        # By gain, not in the order of adding: once its low-scoring pixels are covered, the rest of a region can have a
        # higher mean than the regions before it.
        order = sorted(range(len(self.added)), key=lambda number: -self.gains[number])
        segments = [(self.added[number], self.gains[number]) for number in order]
        if self.free.any():
            segments.append((np.flatnonzero(self.free), float(self.attribution[self.free].mean())))
        gains, ranks = np.zeros(len(self.free)), np.zeros(len(self.free), dtype=np.int64)
        for rank, (pixels, gain) in enumerate(segments, start=1):
            gains[pixels], ranks[pixels] = gain, rank
        return Ranked(gains.reshape(size), ranks.reshape(size))


def ranked_greedily(attribution: Float[np.ndarray, "H W"], regions: Regions, share: float) -> Ranked:
    """Repeatedly add the region whose pixels that are not covered yet have the highest mean attribution.

    The sum and number of the uncovered pixels of each region are updated after each step. Every pixel is subtracted
    once from the regions that contain it, so that the run time is linear in the total size of the regions.

    Args:
        attribution: The attribution of every pixel.
        regions: The candidates.
        share: The share of the image above which no further region is added.
    """
    flat = attribution.reshape(-1).astype(np.float64)
    cover, count = _Cover(flat), len(regions)
    sums, sizes = regions.members @ flat, np.diff(regions.members.indptr).astype(np.float64)
    owners = regions.owners
    while cover.share <= share:
        # Regions that are too small now never grow again: size 0 removes them from the candidates.
        sizes[sizes < regions.least] = 0
        densities = np.divide(sums, sizes, out=np.full(count, -np.inf), where=sizes > 0)
        best = int(densities.argmax())
        if densities[best] == -np.inf:
            break
        pixels = regions.pixels(best)
        new = pixels[cover.free[pixels]]
        cover.add(new)
        # All regions that contain a new pixel, with repetitions: `entries` concatenates the ranges
        # indptr[pixel] : indptr[pixel + 1] of the new pixels, without a Python loop.
        begins, lengths = owners.indptr[new], owners.indptr[new + 1] - owners.indptr[new]
        entries = np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        containing = owners.indices[entries]
        sizes -= np.bincount(containing, minlength=count)
        sums -= np.bincount(containing, weights=np.repeat(flat[new], lengths), minlength=count)
        sizes[best] = 0
    return cover.ranked(regions.size)


def ranked_once(attribution: Float[np.ndarray, "H W"], regions: Regions, share: float) -> Ranked:
    """Add regions in the order of their mean attributions over all of their pixels, computed once.

    Args:
        attribution: The attribution of every pixel.
        regions: The candidates.
        share: The share of the image above which no further region is added.
    """
    flat = attribution.reshape(-1).astype(np.float64)
    cover = _Cover(flat)
    densities = regions.members @ flat / np.diff(regions.members.indptr)
    for region in np.argsort(-densities, kind="stable").tolist():
        if cover.share > share:
            break
        pixels = regions.pixels(region)
        new = pixels[cover.free[pixels]]
        if len(new) >= regions.least:
            cover.add(new)
    return cover.ranked(regions.size)
