"""Features of a layer as channels on a grid, whatever their layout, and a run in which they are watched."""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.capture_request import ActivationRequest
from interpreto.model_wrapping.internals.architecture import first_tensor, replaced
from interpreto.model_wrapping.internals.capture import Capture
from interpreto.model_wrapping.internals.patch_positions import PatchPositions, corner_images, responds_in_corners

_MOST_EXTRA = 16
"""Tokens beside those of the patches, at most: one of the class, some registers."""
_SHOWN = 12
_CONVOLUTIONAL = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.AvgPool2d, nn.MaxPool2d)
"""Modules whose four axes, and those of a module that has one of them, are channels and places."""
_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)

ToGrid = Callable[[Tensor], Float[Tensor, "p c h w"]]


def to_grid_of(shape: tuple[int, ...], size: tuple[int, int], positions: PatchPositions | None) -> ToGrid | None:
    """What brings features of this shape to `p c h w`; None where they have no places.

    Args:
        shape: Of the features, rows first: `p c h w`, `p h w c` or `p l c`.
        size: Height and width of the image.
        positions: Where the patches lie among the positions of a transformer, if that is known.
    """
    if len(shape) == 4:
        if _is_grid(shape[2:], size):
            return lambda features: features
        return (lambda features: features.permute(0, 3, 1, 2)) if _is_grid(shape[1:3], size) else None
    if len(shape) != 3 or shape[2] == 1:
        return None
    if positions is not None and shape[1] == positions.length:
        return positions.to_grid
    grid = _grid(shape[1], size)
    if grid is None:
        return None
    height, width = grid
    extra = shape[1] - height * width
    return lambda features: features[:, extra:].unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _is_grid(grid: Sequence[int], size: tuple[int, int]) -> bool:
    height, width = grid
    if height * width == 1 or height > size[0] or width > size[1]:
        return False
    return abs(height - width * size[0] / size[1]) <= max(1.0, size[0] / size[1])


def _grid(length: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid with the form of the image that leaves the fewest of so many tokens over."""
    for extra in range(min(_MOST_EXTRA, length - 2) + 1):
        width = round(math.sqrt((length - extra) * size[1] / size[0]))
        height = (length - extra) // max(1, width)
        if height * width == length - extra > 1 and _is_grid((height, width), size):
            return height, width
    return None


@dataclass(frozen=True, eq=False)
class FeatureLayer:
    """A layer whose features can be watched: what a module returns or, for a transformer's block, what it is given."""

    module: nn.Module
    name: str
    to_grid: ToGrid
    use_input: bool = False


def feature_layers(
    module: nn.Module,
    run: Callable[[Float[Tensor, "p c H W"]], object],
    pixels: Float[Tensor, "1 c H W"],
    positions: PatchPositions | None,
) -> list[FeatureLayer]:
    """The layers with places that run, in the order in which they end.

    A layer whose shape has the form of a grid is one only if its cells respond to the corners of the image that lie
    there: attention weights, latent arrays and patches in another order have the shape alone.

    Args:
        module: The model.
        run: Runs it on images.
        pixels: An image.
        positions: Where the patches lie among the positions of a transformer, if that is known.
    """
    images = corner_images(pixels)
    found: dict[str, ToGrid | None] = {}
    # A table of positions says nothing of the image.
    parts = {name: part for name, part in module.named_modules() if name and not isinstance(part, nn.Embedding)}
    note = partial(_note_fold, found, len(images), (pixels.shape[2], pixels.shape[3]), positions)
    handles = [part.register_forward_hook(partial(note, name)) for name, part in parts.items()]
    try:
        run(images)
    finally:
        for handle in handles:
            handle.remove()
    return [FeatureLayer(parts[name], name, fold) for name, fold in found.items() if fold is not None]


def _note_fold(
    found: dict[str, ToGrid | None],
    rows: int,
    size: tuple[int, int],
    positions: PatchPositions | None,
    name: str,
    module: nn.Module,
    _given: Any,
    output: Any,
) -> None:
    # Of what a whole model returns under several names, nobody knows which part goes on.
    tensor = None if isinstance(output, dict) else first_tensor(output)
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return
    # Layers stand in the order in which they end for the last time. Windows are rows of their own.
    found.pop(name, None)
    fold = to_grid_of(tuple(tensor.shape), size, positions) if len(tensor) == rows else None
    told = (
        any(isinstance(part, _CONVOLUTIONAL) for part in module.modules())
        if tensor.ndim == 4
        else positions is not None and tensor.shape[1] == positions.length
    )
    found[name] = fold if fold is None or told or responds_in_corners(fold(tensor.detach())) else None


def named_layer(
    probe: ActivationRequest, known: Sequence[FeatureLayer], module: nn.Module, blocks: Sequence[str]
) -> FeatureLayer:
    """The layer that the user named.

    Args:
        probe: What is asked.
        known: The layers with places.
        module: The model.
        blocks: The names of a transformer's blocks; none for other models.

    Raises:
        OptionError: if it is none of the model's, or has no places; the message lists those that can be used.
    """
    wanted = probe.layer
    names = {spot.name: spot for spot in known}
    if isinstance(wanted, nn.Module):
        found, said = [], type(wanted).__name__
    elif probe.kind:
        found, said = [names[wanted]] if wanted in names else [], probe.kind
    else:
        found = [names[wanted]] if wanted in names else [s for s in known if s.name.endswith(f".{wanted}")]
        said = repr(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise OptionError(f"layer={said} fits several layers: {', '.join(spot.name for spot in found[:_SHOWN])}.")
    # After a transformer's last block most read their class token alone.
    outer = [spot.name for spot in known if spot.name.count(".") <= min(s.name.count(".") for s in known) + 1]
    usable = [name for name in blocks[:-1] if name in names] or outer
    shown = ", ".join(repr(name) for name in usable[-_SHOWN:]) or "none"
    if not isinstance(wanted, str) or wanted in dict(module.named_modules()):
        raise OptionError(
            f"layer={said} has no features with places, or does not run here. Layers that can be used: {shown}."
        )
    close = difflib.get_close_matches(str(wanted), names, n=1)
    meant = f"did you mean {close[0]!r}? Others are" if close else "choose from"
    raise OptionError(f"The model has no layer={said}: {meant} {shown}.")


def default_layer(
    first: Sequence[FeatureLayer],
    known: Sequence[FeatureLayer],
    run: Callable[[], Float[Tensor, "1 k"]],
    module: nn.Module,
) -> FeatureLayer:
    """The last layer on which the output rests.

    A layer may run last and lead nowhere: a decoder beside the head, a head of another task, what is detached.

    Args:
        first: Layers that are tried before the others.
        known: The layers with places, in the order in which they end.
        run: Runs the model on an image.
        module: The model.

    Raises:
        UnsupportedError: if there is no layer with places, or the output rests on none in a way that can be
            differentiated.
    """
    plain = [spot for spot in known if not isinstance(spot.module, _POOLS)]
    if not first and not plain:
        raise UnsupportedError(f"No layer of {type(module).__name__} has features with places: GradCam needs one.")
    for spot in [*first, *reversed(plain)]:
        if is_used(spot, run):
            return spot
    raise UnsupportedError(
        f"The output of {type(module).__name__} rests on no layer with places in a way that PyTorch can differentiate: "
        "its head may be quantised or read another token alone. Methods that hide parts do without."
    )


def is_used(spot: FeatureLayer, run: Callable[[], Float[Tensor, "1 k"]]) -> bool:
    """Whether a layer has features that the output rests on: their gradient is not 0 everywhere."""
    with FeatureCapture(spot, ActivationRequest(_first)) as watch:
        outputs = run()
        if not outputs.requires_grad:
            return False
        # A plain sum of probabilities is constant.
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
        (leaf,) = watch.leaves()
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), leaf, retain_graph=True, allow_unused=True)
        if gradient is None or not (slopes := spot.to_grid(gradient)).any():
            return False
        if slopes.shape[1] != outputs.shape[1] or slopes.shape[1] < 2:
            return True
        # Logits of an auxiliary head are no features: each channel of theirs reaches the logit of its class alone.
        (of_first,) = torch.autograd.grad(outputs[0, 0], leaf)
        return bool(spot.to_grid(of_first)[:, 1:].any())


def _first(features: Tensor, gradients: Tensor) -> Tensor:
    return features


@final
class FeatureCapture(Capture):
    """Features of one layer."""

    def __init__(self, spot: FeatureLayer, probe: ActivationRequest) -> None:
        self.spot, self.probe = spot, probe
        self.features: Tensor | None = None
        self.handle: Any = None
        self.graphs = False

    def __enter__(self) -> "Capture":
        self.graphs = torch.is_grad_enabled()
        module = self.spot.module
        if self.spot.use_input:
            self.handle = module.register_forward_pre_hook(self._enter, with_kwargs=True)
        else:
            self.handle = module.register_forward_hook(self._leave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handle.remove()
        torch.set_grad_enabled(self.graphs)

    def _enter(self, _module: nn.Module, args: Any, kwargs: Any) -> Any:
        old = first_tensor((args, kwargs))
        return replaced((args, kwargs), old, self._watched(old))

    def _leave(self, _module: nn.Module, _given: Any, output: Any) -> Any:
        old = first_tensor(output)
        return replaced(output, old, self._watched(old))

    def _watched(self, features: Tensor | None) -> Tensor:
        assert features is not None
        torch.set_grad_enabled(True)
        self.features = features.detach().requires_grad_()
        # A copy goes on, which layers that work in place may change.
        return self.features.clone()

    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        return [outputs]

    def leaves(self) -> list[Tensor]:
        assert self.features is not None
        return [self.features]

    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p h w"]:
        assert self.features is not None
        (gradient,) = gradients
        folded = self.spot.to_grid(gradient.float())
        if gradient.any() and not folded.any():
            raise UnsupportedError(
                f"The output does not read the patches of {self.spot.name}: it rests on another token alone. Use an "
                "earlier layer."
            )
        return self.probe.rule(self.spot.to_grid(self.features.detach().float()), folded)
