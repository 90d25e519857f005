"""Regions of an image: stretches of like colour at several scales, which may overlap."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.ndimage import find_objects
from scipy.sparse import csc_array, csr_array
from skimage.segmentation import felzenszwalb
from skimage.transform import resize

from interpreto.errors import InputError, OptionError

_SCALES = (50, 100, 150, 250, 500, 1200)
_SIGMA, _LEAST, _SIDE = 0.8, 150, 224


@final
@dataclass(frozen=True, eq=False)
class Regions:
    """Sets of an image's pixels.

    Attributes:
        size: Height and width of the image.
        members: The pixels of each region, `k H*W`.
        least: Regions that would add fewer pixels than this are left out.
    """

    size: tuple[int, int]
    members: csr_array
    least: int = 50

    @cached_property
    def owners(self) -> csc_array:
        """The regions of each pixel."""
        return self.members.tocsc()

    def __len__(self) -> int:
        return len(self.members.indptr) - 1

    def pixels(self, region: int) -> Int[np.ndarray, " _s"]:
        """The pixels of a region, as numbers into the flattened image."""
        begin, end = self.members.indptr[region : region + 2]
        return self.members.indices[begin:end]

    @staticmethod
    def of(found: Iterable[Int[np.ndarray, " _s"]], size: tuple[int, int]) -> "Regions":
        """Regions from the pixels of each."""
        parts = [part for part in found if len(part)]
        ends = np.cumsum([0, *map(len, parts)])
        members = np.concatenate(parts).astype(np.int32)
        shape = (len(parts), size[0] * size[1])
        return Regions(size, csr_array((np.ones(len(members)), members, ends.astype(np.int32)), shape=shape))


def given(segments: Shaped[np.ndarray, "..."], size: tuple[int, int]) -> Regions:
    """A user's own segments: labels `H W`, or masks `k H W`, which may overlap.

    Raises:
        OptionError: if they do not match the image, or name no segment.
    """
    labels = segments.ndim == 2 and segments.dtype != bool and np.issubdtype(segments.dtype, np.integer)
    if segments.shape[-2:] != size or not (labels or segments.ndim == 3):
        raise OptionError(
            f"segments= must be whole numbers {size[0]} x {size[1]}, one per pixel that the model reads, or masks "
            f"k x {size[0]} x {size[1]}; got the shape {segments.shape} of {segments.dtype}."
        )
    if labels:
        _, flat = np.unique(segments, return_inverse=True)
        order = np.argsort(flat.reshape(-1), kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(flat.reshape(-1)))[:-1])
    else:
        parts = [np.flatnonzero(mask) for mask in segments]
    if not any(map(len, parts)):
        raise OptionError("segments= holds masks that are all empty: there is no segment to rank.")
    found = Regions.of(parts, size)
    # Segments that the user names are there, however small.
    smallest = int(np.diff(found.members.indptr).min())
    return replace(found, least=min(found.least, smallest))


def segmented(image: Float[np.ndarray, "H W c"], dilation: int = 5) -> Regions:
    """An image's regions at six scales, each grown by some pixels, so that edges belong to both sides.

    The image is looked at with 224 x 224 pixels and values from -1 to 1, for which the scales are meant.

    Source:
        Kapishnikov et al. 2019, arXiv:1906.02825, section 3.2, with the constants of their code; Felzenszwalb and
        Huttenlocher 2004, *Efficient graph-based image segmentation*.

    Raises:
        InputError: if the image has one colour alone.
    """
    check_divisible(image)
    low, high = image.min(), image.max()
    spread = (image.astype(np.float64) - low) / (high - low) * 2 - 1
    small = resize(spread, (_SIDE, _SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    size = image.shape[:2]
    down, across = (_nearest(extent) for extent in size)
    found: list[Int[np.ndarray, " _s"]] = []
    for scale in _SCALES:
        labels = felzenszwalb(small, scale=scale, sigma=_SIGMA, min_size=_LEAST)
        found += grown(labels[down[:, None], across], dilation)
    return Regions.of(found, size)


def check_divisible(image: Float[np.ndarray, "H W c"]) -> None:
    """Refuse an image in which there is nothing to see.

    Raises:
        InputError: if it has one colour alone.
    """
    if np.ptp(image, axis=(0, 1)).max() <= 1e-6 * max(1.0, abs(image.min()), abs(image.max())):
        raise InputError("The image has one colour alone: there is nothing to divide it into. Give segments= yourself.")


def _nearest(extent: int) -> Int[np.ndarray, " e"]:
    """Which of the 224 lines each line of the image comes from, as scikit-image enlarges labels."""
    line = np.arange(_SIDE, dtype=np.float64)[:, None]
    drawn = resize(line, (extent, 1), order=0, preserve_range=True, mode="constant", anti_aliasing=False)
    return np.asarray(drawn)[:, 0].astype(int)


def grown(labels: Int[np.ndarray, "H W"], radius: int) -> list[Int[np.ndarray, " _s"]]:
    """The pixels within a distance of each label's own, label by label."""
    height, width = labels.shape
    found = []
    for label, place in enumerate(find_objects(labels + 1)):
        if place is None:
            # Small segments may be lost where the image is smaller than it was looked at.
            continue
        down, across = place
        top, bottom = max(down.start - radius, 0), min(down.stop + radius, height)
        left, right = max(across.start - radius, 0), min(across.stop + radius, width)
        rows, columns = np.nonzero(dilated(labels[top:bottom, left:right] == label, radius))
        found.append((rows + top) * width + columns + left)
    return found


def dilated(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """A mask grown by a disk: by its horizontal runs, one after the other, for one is grown from the last."""
    out = mask.copy()
    wide, reach = mask.copy(), 0
    for away in range(radius, -1, -1):
        # At this distance above and below, the disk is so wide to the left and right.
        while (reach + 1) ** 2 + away**2 <= radius**2:
            reach += 1
            wide[:, reach:] |= mask[:, :-reach]
            wide[:, :-reach] |= mask[:, reach:]
        if away:
            out[away:] |= wide[:-away]
            out[:-away] |= wide[away:]
        else:
            out |= wide
    return out
