"""Where patches lie among the positions of a transformer's hidden states, and which layers have places at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.model_wrapping.internals.architecture import BlockStructure, first_tensor

_CHANGED = 1e-3
"""A position has changed if it changed by more than this share of the largest change."""
_DRAWS = 2
"""Images of noise for each place that is changed."""
_CORNERS = 3
"""In so many of four corners the cells must change most: random weights may lose one on a grid of few cells."""

Run = Callable[[Float[Tensor, "p c H W"]], object]


@dataclass(frozen=True, eq=False)
class PatchPositions:
    """Where patches lie in sequences of one length.

    Attributes:
        grid: The position of every patch.
        length: How many positions there are.
    """

    grid: Int[Tensor, "h w"]
    length: int

    def to_grid(self, features: Float[Tensor, "p l c"]) -> Float[Tensor, "p c h w"]:
        """The features of the patches on their grid."""
        return features[:, self.grid.to(features.device)].permute(0, 3, 1, 2)


class _ReachedError(Exception):
    """The block was reached: nothing after it matters."""


def patch_positions(anatomy: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"]) -> PatchPositions | None:
    """The position of every patch; None where patches do not lie on a grid when the first block begins.

    Found by changing the image: what changes with its uppermost line of pixels is the uppermost line of patches, what
    changes with its leftmost column the leftmost one. Class, register and distillation tokens change with nothing,
    wherever they stand.
    """
    noise = _noise(pixels)
    top, left = torch.zeros_like(noise), torch.zeros_like(noise)
    top[..., 0, :], left[..., :, 0] = noise[..., 0, :], noise[..., :, 0]
    changed = torch.cat([pixels, pixels + top, pixels + left, pixels + noise])
    entered = _entering(anatomy.blocks[:1], anatomy.batch, run, changed)
    if entered is None:
        return None
    change = (entered[1:] - entered[:1]).abs().amax(-1)
    rows = change > _CHANGED * change.amax(-1, keepdim=True)
    across, down, everywhere = (row.nonzero()[:, 0].cpu() for row in rows)
    if not len(across) or not len(down):
        return None
    found = down[:, None] + across - across[0]
    return PatchPositions(found, change.shape[1]) if torch.equal(found.flatten().sort().values, everywhere) else None


def later_positions(
    anatomy: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"], first: PatchPositions, length: int
) -> PatchPositions | None:
    """The same for a later block that is given more positions than the first one: a class token has joined.

    Behind a block every position changes with every patch, but most with its own: the first and the last patch tell
    how many tokens stand before them.
    """
    (rows, columns), (height, width) = first.grid.shape, pixels.shape[2:]
    ends = [
        (slice(0, height // rows), slice(0, width // columns)),
        (slice(height - height // rows, None), slice(width - width // columns, None)),
    ]
    blocks = tuple(dict.fromkeys(anatomy.blocks))
    entered = _entering(blocks, anatomy.batch, run, torch.cat([pixels, *_changed_at(pixels, ends)]), length)
    if entered is None:
        return None
    change = (entered[1:] - entered[:1]).abs().mean(-1).unflatten(0, (-1, len(ends))).mean(0)
    top, bottom = change.argmax(-1).tolist()
    begin, end = int(first.grid[0, 0]), int(first.grid[-1, -1])
    return PatchPositions(first.grid + top - begin, length) if bottom - top == end - begin else None


def corner_images(pixels: Float[Tensor, "1 c H W"]) -> Float[Tensor, "p c H W"]:
    """An image, and the same with its corners changed one at a time, for `responds_in_corners`."""
    height, width = pixels.shape[2:]
    tall, wide = max(1, height // 4), max(1, width // 4)
    corners = [
        (down, across)
        for down in (slice(0, tall), slice(height - tall, None))
        for across in (slice(0, wide), slice(width - wide, None))
    ]
    return torch.cat([pixels, *_changed_at(pixels, corners)])


def responds_in_corners(features: Float[Tensor, "p c h w"]) -> bool:
    """Whether features of `corner_images` are those of places: cells change most where the image was changed.

    A corner to which no cell responds says nothing: a layer may start at zero.
    """
    change = (features[1:] - features[:1]).abs().float().mean(1).unflatten(0, (-1, 4)).mean(0)
    rows, columns = change.shape[1:]
    right = 0
    for corner, cells in enumerate(change):
        down, across = divmod(int(cells.argmax()), columns)
        # The middle line of an odd number belongs to both halves.
        above, before = 2 * down <= rows - 1, 2 * across <= columns - 1
        below, behind = 2 * down >= rows - 1, 2 * across >= columns - 1
        right += not cells.any() or bool((above if corner < 2 else below) and (before if corner % 2 == 0 else behind))
    return right >= _CORNERS


def _noise(pixels: Float[Tensor, "1 c H W"], seed: int = 0) -> Float[Tensor, "1 c H W"]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(pixels.shape, generator=rng).to(pixels) * pixels.std().clamp(min=0.5)


def _changed_at(pixels: Float[Tensor, "1 c H W"], places: list[tuple[slice, slice]]) -> list[Float[Tensor, "1 c H W"]]:
    """The image changed at each place, once for every draw of noise."""
    found = []
    for draw in range(_DRAWS):
        noise = _noise(pixels, draw)
        for down, across in places:
            changed = pixels.clone()
            changed[..., down, across] += 2 * noise[..., down, across]
            found.append(changed)
    return found


def length_before_last(anatomy: BlockStructure, run: Run, pixels: Float[Tensor, "1 c H W"]) -> int | None:
    """How many positions enter the last block; None where it is given no hidden states of positions."""
    entered = _entering(anatomy.blocks[-1:], anatomy.batch, run, torch.cat([pixels, pixels]))
    return None if entered is None else entered.shape[1]


def _entering(
    blocks: Sequence[nn.Module], batch: int, run: Run, images: Float[Tensor, "p c H W"], length: int | None = None
) -> Float[Tensor, "p l d"] | None:
    """The hidden states that first enter one of some blocks, or the first of so many positions that do."""
    found: list[Tensor | None] = []

    def enter(_module: Any, args: Any, kwargs: Any) -> None:
        hidden = first_tensor((args, kwargs))
        hidden = hidden.movedim(batch, 0) if hidden is not None and hidden.ndim == 3 else None
        if length is None or (hidden is not None and hidden.shape[1] == length):
            found.append(hidden)
            raise _ReachedError

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    try:
        run(images)
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    hidden = found[0] if found else None
    return hidden.float() if hidden is not None and len(hidden) == len(images) else None
