"""The positions of patches in a transformer's hidden states, and which layers have spatial positions at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.model_wrapping.internals.architecture import BlockStructure, first_tensor

_CHANGED = 1e-3
"""A position counts as changed if it changed by more than this fraction of the largest change."""
_N_DRAWS = 2
"""Number of noise images per changed region."""
_MIN_CORNERS = 3
"""Number of the four corners whose cells must change most; with random weights a small grid may miss one."""

Run = Callable[[Float[Tensor, "p c H W"]], object]


@dataclass(frozen=True, eq=False)
class PatchPositions:
    """The positions of patches in sequences of one length.

    Attributes:
        grid: The position of every patch.
        length: Number of positions.
    """

    grid: Int[Tensor, "h w"]
    length: int

    def to_grid(self, features: Float[Tensor, "p l c"]) -> Float[Tensor, "p c h w"]:
        """The features of the patches on their grid."""
        return features[:, self.grid.to(features.device)].permute(0, 3, 1, 2)


class _ReachedError(Exception):
    """Stops a run at the block that was reached."""


def patch_positions(structure: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"]) -> PatchPositions | None:
    """The position of every patch; None if patches are not on a grid at the input of the first block.

    They are located by changing the image: positions that change with its top row of pixels are the top row of patches,
    those that change with its left column the left column. Class, register and distillation tokens do not change at
    all, wherever they are.
    """
    noise = _noise(pixels)
    top, left = torch.zeros_like(noise), torch.zeros_like(noise)
    top[..., 0, :], left[..., :, 0] = noise[..., 0, :], noise[..., :, 0]
    changed = torch.cat([pixels, pixels + top, pixels + left, pixels + noise])
    hidden = _hidden_at(structure.blocks[:1], structure.batch, run, changed)
    if hidden is None:
        return None
    change = (hidden[1:] - hidden[:1]).abs().amax(-1)
    is_changed = change > _CHANGED * change.amax(-1, keepdim=True)
    top_row, left_column, all_patches = (row.nonzero()[:, 0].cpu() for row in is_changed)
    if not len(top_row) or not len(left_column):
        return None
    # Patches are in raster order: each row repeats the offsets of the top row.
    grid = left_column[:, None] + top_row - top_row[0]
    return PatchPositions(grid, change.shape[1]) if torch.equal(grid.flatten().sort().values, all_patches) else None


def later_positions(
    structure: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"], first: PatchPositions, length: int
) -> PatchPositions | None:
    """The positions at a later block with more positions than the first, because a class token was added.

    After a block every position depends on every patch, but most strongly on its own. The first and the last patch
    therefore show how many tokens come before them.
    """
    (rows, columns), (height, width) = first.grid.shape, pixels.shape[2:]
    corners = [
        (slice(0, height // rows), slice(0, width // columns)),
        (slice(height - height // rows, None), slice(width - width // columns, None)),
    ]
    blocks = tuple(dict.fromkeys(structure.blocks))
    hidden = _hidden_at(blocks, structure.batch, run, torch.cat([pixels, *_with_noise_at(pixels, corners)]), length)
    if hidden is None:
        return None
    change = (hidden[1:] - hidden[:1]).abs().mean(-1).unflatten(0, (-1, len(corners))).mean(0)
    top, bottom = change.argmax(-1).tolist()
    first_patch, last_patch = int(first.grid[0, 0]), int(first.grid[-1, -1])
    return PatchPositions(first.grid + top - first_patch, length) if bottom - top == last_patch - first_patch else None


def corner_images(pixels: Float[Tensor, "1 c H W"]) -> Float[Tensor, "p c H W"]:
    """An image, and copies of it with one corner changed each, for `responds_in_corners`."""
    height, width = pixels.shape[2:]
    corner_height, corner_width = max(1, height // 4), max(1, width // 4)
    corners = [
        (down, across)
        for down in (slice(0, corner_height), slice(height - corner_height, None))
        for across in (slice(0, corner_width), slice(width - corner_width, None))
    ]
    return torch.cat([pixels, *_with_noise_at(pixels, corners)])


def responds_in_corners(features: Float[Tensor, "p c h w"]) -> bool:
    """Whether features of `corner_images` are spatial: the cells that change most are where the image was changed.

    A corner to which no cell responds does not count against it: a layer may be initialized to zero.
    """
    change = (features[1:] - features[:1]).abs().float().mean(1).unflatten(0, (-1, 4)).mean(0)
    rows, columns = change.shape[1:]
    n_correct = 0
    for corner, cells in enumerate(change):
        down, across = divmod(int(cells.argmax()), columns)
        # The middle row or column of an odd number belongs to both halves.
        in_top, in_left = 2 * down <= rows - 1, 2 * across <= columns - 1
        in_bottom, in_right = 2 * down >= rows - 1, 2 * across >= columns - 1
        n_correct += not cells.any() or bool(
            (in_top if corner < 2 else in_bottom) and (in_left if corner % 2 == 0 else in_right)
        )
    return n_correct >= _MIN_CORNERS


def _noise(pixels: Float[Tensor, "1 c H W"], seed: int = 0) -> Float[Tensor, "1 c H W"]:
    rng = torch.Generator().manual_seed(seed)
    # The noise has the scale of the image; a constant image has a deviation of 0.
    return torch.randn(pixels.shape, generator=rng).to(pixels) * pixels.std().clamp(min=0.5)


def _with_noise_at(
    pixels: Float[Tensor, "1 c H W"], positions: list[tuple[slice, slice]]
) -> list[Float[Tensor, "1 c H W"]]:
    """Copies of the image with noise in one region each, for every draw of noise."""
    images = []
    for draw in range(_N_DRAWS):
        noise = _noise(pixels, draw)
        for rows, columns in positions:
            copy = pixels.clone()
            copy[..., rows, columns] += 2 * noise[..., rows, columns]
            images.append(copy)
    return images


def length_before_last(structure: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"]) -> int | None:
    """Number of positions at the input of the last block; None if its input is not a sequence."""
    hidden = _hidden_at(structure.blocks[-1:], structure.batch, run, torch.cat([pixels, pixels]))
    return None if hidden is None else hidden.shape[1]


def _hidden_at(
    blocks: Sequence[nn.Module], batch: int, run: Run, images: Float[Tensor, "p c H W"], length: int | None = None
) -> Float[Tensor, "p l d"] | None:
    """The hidden states at the input of the first of these blocks that runs, or the first input of this length."""
    inputs: list[Tensor | None] = []

    def enter(_module: object, args: object, kwargs: object) -> None:
        hidden = first_tensor((args, kwargs))
        hidden = hidden.movedim(batch, 0) if hidden is not None and hidden.ndim == 3 else None
        if length is None or (hidden is not None and hidden.shape[1] == length):
            inputs.append(hidden)
            raise _ReachedError

    # The run is stopped by an exception once the input is known, which saves the rest of the model.
    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    try:
        run(images)
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    hidden = inputs[0] if inputs else None
    return hidden.float() if hidden is not None and len(hidden) == len(images) else None
