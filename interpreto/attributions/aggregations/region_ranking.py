"""XRAI's ranking: the regions with the most attribution per pixel, one after the other."""

from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int

from interpreto.attributions.granularity.regions import Regions


@final
@dataclass(frozen=True, eq=False)
class Ranked:
    """The rank of every pixel.

    Attributes:
        gains: The mean attribution of what a pixel's segment added.
        ranks: The place of a pixel's segment in the order of gains, 1 for the highest. Every pixel is in one.
    """

    gains: Float[np.ndarray, "H W"]
    ranks: Int[np.ndarray, "H W"]


@dataclass(eq=False)
class _Cover:
    """Which part of the image is covered, and by which segments."""

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
        """All pixels in order; those that no segment covers come last, with their own mean."""
        order = sorted(range(len(self.added)), key=lambda number: -self.gains[number])
        segments = [(self.added[number], self.gains[number]) for number in order]
        if self.free.any():
            segments.append((np.flatnonzero(self.free), float(self.attribution[self.free].mean())))
        gains, ranks = np.zeros(len(self.free)), np.zeros(len(self.free), dtype=np.int64)
        for place, (pixels, gain) in enumerate(segments, start=1):
            gains[pixels], ranks[pixels] = gain, place
        return Ranked(gains.reshape(size), ranks.reshape(size))


def ranked_greedily(attribution: Float[np.ndarray, "H W"], regions: Regions, share: float) -> Ranked:
    """Add again and again the region with the highest mean attribution over its pixels that are not covered yet.

    Each region's sum and count are kept up to date: over the whole run every pixel is taken from the regions that hold
    it once, so that time grows with the size of the regions and not with its square.

    Args:
        attribution: Of every pixel.
        regions: What to choose from.
        share: Stop when more than this of the image is covered.
    """
    flat = attribution.reshape(-1).astype(np.float64)
    cover, count = _Cover(flat), len(regions)
    sums, sizes = regions.members @ flat, np.diff(regions.members.indptr).astype(np.float64)
    owners = regions.owners
    while cover.share <= share:
        sizes[sizes < regions.least] = 0
        densities = np.divide(sums, sizes, out=np.full(count, -np.inf), where=sizes > 0)
        best = int(densities.argmax())
        if densities[best] == -np.inf:
            break
        pixels = regions.pixels(best)
        new = pixels[cover.free[pixels]]
        cover.add(new)
        begins, lengths = owners.indptr[new], owners.indptr[new + 1] - owners.indptr[new]
        places = np.repeat(begins - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        holders = owners.indices[places]
        sizes -= np.bincount(holders, minlength=count)
        sums -= np.bincount(holders, weights=np.repeat(flat[new], lengths), minlength=count)
        sizes[best] = 0
    return cover.ranked(regions.size)


def ranked_once(attribution: Float[np.ndarray, "H W"], regions: Regions, share: float) -> Ranked:
    """Add regions in the order of their own mean attributions, whatever they have in common.

    Args:
        attribution: Of every pixel.
        regions: What to choose from.
        share: Stop when more than this of the image is covered.
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
