"""Regions of an image: segments of similar colour at several scales, which may overlap."""

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

# The constants of the authors' code.
_SCALES = (50, 100, 150, 250, 500, 1200)
_SIGMA, _LEAST, _SIDE = 0.8, 150, 224


@final
@dataclass(frozen=True, eq=False)
class Regions:
    """Sets of pixels of an image, which may overlap.

    Attributes:
        size: Height and width of the image.
        members: A sparse matrix `k H*W`, 1 where a region contains a pixel.
        least: The smallest number of new pixels for which a region is added to the ranking.
    """

    size: tuple[int, int]
    members: csr_array
    least: int = 50

    @cached_property
    def owners(self) -> csc_array:
        """`members` by columns: the regions of each pixel."""
        return self.members.tocsc()

    def __len__(self) -> int:
        # A sparse array refuses len(); the row pointers have one entry more than there are rows.
        return len(self.members.indptr) - 1

    def pixels(self, region: int) -> Int[np.ndarray, " _s"]:
        """The pixels of a region, as indices into the flattened image."""
        begin, end = self.members.indptr[region : region + 2]
        return self.members.indices[begin:end]

    @staticmethod
    def of(found: Iterable[Int[np.ndarray, " _s"]], size: tuple[int, int]) -> "Regions":
        """Regions from the pixel indices of each; empty ones are dropped."""
        parts = [part for part in found if len(part)]
        ends = np.cumsum([0, *map(len, parts)])
        members = np.concatenate(parts).astype(np.int32)
        shape = (len(parts), size[0] * size[1])
        return Regions(size, csr_array((np.ones(len(members)), members, ends.astype(np.int32)), shape=shape))


def given(segments: Shaped[np.ndarray, "..."], size: tuple[int, int]) -> Regions:
    """Regions from the user's segments: labels `H W`, or masks `k H W`, which may overlap.

    Raises:
        OptionError: if they do not match the image, or all masks are empty.
    """
    labels = segments.ndim == 2 and segments.dtype != bool and np.issubdtype(segments.dtype, np.integer)
    if segments.shape[-2:] != size or not (labels or segments.ndim == 3):
        raise OptionError(
            f"segments= must be integer labels {size[0]} x {size[1]}, one per pixel that the model reads, or masks "
            f"k x {size[0]} x {size[1]}; got the shape {segments.shape} of {segments.dtype}."
        )
    if labels:
        _, flat = np.unique(segments, return_inverse=True)
        # Sorting all pixels by label once is much faster than one comparison of the image per label.
        order = np.argsort(flat.reshape(-1), kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(flat.reshape(-1)))[:-1])
    else:
        parts = [np.flatnonzero(mask) for mask in segments]
    if not any(map(len, parts)):
        raise OptionError("All masks in segments= are empty: there is no segment to rank.")
    regions = Regions.of(parts, size)
    # The user's own segments are ranked however small they are.
    smallest = int(np.diff(regions.members.indptr).min())
    return replace(regions, least=min(regions.least, smallest))


def segmented(image: Float[np.ndarray, "H W c"], dilation: int = 5) -> Regions:
    """The regions of an image at six scales, each dilated, so that an edge belongs to the regions on both sides of it.

    The image is segmented at 224 x 224 pixels with values from -1 to 1, for which the scales were chosen.

    Source:
        Kapishnikov et al. 2019, arXiv:1906.02825, section 3.2, with the constants of their code; Felzenszwalb and
        Huttenlocher 2004, *Efficient graph-based image segmentation*.

    Raises:
        InputError: if the image has a single colour.
    """
    check_divisible(image)
    low, high = image.min(), image.max()
    spread = (image.astype(np.float64) - low) / (high - low) * 2 - 1
    small = resize(spread, (_SIDE, _SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    size = image.shape[:2]
    down, across = (_nearest(extent) for extent in size)
    parts: list[Int[np.ndarray, " _s"]] = []
    for scale in _SCALES:
        labels = felzenszwalb(small, scale=scale, sigma=_SIGMA, min_size=_LEAST)
        # Labels are enlarged before they are dilated, so that the radius is in pixels of the image.
        parts += grown(labels[down[:, None], across], dilation)
    return Regions.of(parts, size)


def check_divisible(image: Float[np.ndarray, "H W c"]) -> None:
    """Check that an image can be segmented.

    Raises:
        InputError: if it has a single colour, up to rounding.
    """
    if np.ptp(image, axis=(0, 1)).max() <= 1e-6 * max(1.0, abs(image.min()), abs(image.max())):
        raise InputError("The image has a single colour and cannot be divided into segments. Pass segments= yourself.")


def _nearest(extent: int) -> Int[np.ndarray, " e"]:
    """The line of the 224 x 224 image that each of `extent` lines takes its labels from, as scikit-image resizes."""
    # Resizing an image of line numbers, rather than a formula, reproduces the rounding of scikit-image exactly.
    line = np.arange(_SIDE, dtype=np.float64)[:, None]
    drawn = resize(line, (extent, 1), order=0, preserve_range=True, mode="constant", anti_aliasing=False)
    return np.asarray(drawn)[:, 0].astype(int)


def grown(labels: Int[np.ndarray, "H W"], radius: int) -> list[Int[np.ndarray, " _s"]]:
    """The pixels of each label after dilation with a disk, one entry per label."""
    height, width = labels.shape
    parts = []
    # find_objects skips label 0. Dilating within the bounding box instead of the whole image saves most of the time.
    for label, bounding_box in enumerate(find_objects(labels + 1)):
        if bounding_box is None:
            # A small segment can vanish where the image is smaller than 224 x 224.
            continue
        down, across = bounding_box
        top, bottom = max(down.start - radius, 0), min(down.stop + radius, height)
        left, right = max(across.start - radius, 0), min(across.stop + radius, width)
        rows, columns = np.nonzero(dilated(labels[top:bottom, left:right] == label, radius))
        parts.append((rows + top) * width + columns + left)
    return parts


def dilated(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """A mask dilated with a disk of this radius."""
    # The disk is a union of horizontal runs, one per vertical distance. From the farthest to the nearest these runs get
    # longer, so that each dilation by a run continues the one before: 2 * radius shifts instead of radius ** 2.
    out = mask.copy()
    wide, reach = mask.copy(), 0
    for vertical in range(radius, -1, -1):
        # `reach` becomes the half-length of the run at this vertical distance from the centre.
        while (reach + 1) ** 2 + vertical**2 <= radius**2:
            reach += 1
            wide[:, reach:] |= mask[:, :-reach]
            wide[:, :-reach] |= mask[:, reach:]
        if vertical:
            out[vertical:] |= wide[:-vertical]
            out[:-vertical] |= wide[vertical:]
        else:
            out |= wide
    return out
