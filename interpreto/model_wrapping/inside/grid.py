"""Where the patches of an image lie among the positions of a transformer's hidden states."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interpreto.model_wrapping.inside.anatomy import Anatomy, first_tensor

_CHANGED = 1e-3
"""A position has changed if it changed by more than this share of the largest change."""


class _ReachedError(Exception):
    """The first block was reached: nothing after it matters."""


def patch_positions(
    anatomy: Anatomy, run: Callable[[Float[Tensor, "p c H W"]], object], pixels: Float[Tensor, "1 c H W"]
) -> Int[Tensor, "h w"] | None:
    """The position of every patch; None where patches do not lie on a grid when the first block begins.

    Found by changing the image: what changes with its uppermost line of pixels is the uppermost line of patches, what
    changes with its leftmost column the leftmost one. Class, register and distillation tokens change with nothing,
    wherever they stand.
    """
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(pixels.shape, generator=rng).to(pixels) * pixels.std().clamp(min=0.5)
    top, left = torch.zeros_like(noise), torch.zeros_like(noise)
    top[..., 0, :], left[..., :, 0] = noise[..., 0, :], noise[..., :, 0]
    entered = _entering(anatomy, lambda: run(torch.cat([pixels, pixels + top, pixels + left, pixels + noise])))
    if entered is None or entered.ndim != 3:
        return None
    hidden = entered.movedim(anatomy.batch, 0).float()
    if len(hidden) != 4:
        return None
    change = (hidden[1:] - hidden[:1]).abs().amax(-1)
    rows = change > _CHANGED * change.amax(-1, keepdim=True)
    across, down, everywhere = (row.nonzero()[:, 0].cpu() for row in rows)
    if not len(across) or not len(down):
        return None
    found = down[:, None] + across - across[0]
    return found if torch.equal(found.flatten().sort().values, everywhere) else None


def _entering(anatomy: Anatomy, run: Callable[[], Any]) -> Tensor | None:
    """The hidden states that enter the first block."""
    found: list[Tensor | None] = []

    def enter(_module: Any, args: Any, kwargs: Any) -> None:
        found.append(first_tensor((args, kwargs)))
        raise _ReachedError

    handle = anatomy.blocks[0].register_forward_pre_hook(enter, with_kwargs=True)
    try:
        run()
    except _ReachedError:
        return found[0]
    finally:
        handle.remove()
    return None
