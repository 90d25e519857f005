"""Activations of a layer as channels on a grid, whatever their layout, and a run in which they are captured."""

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

_MAX_EXTRA_TOKENS = 16
"""Maximum number of tokens that are not patches: a class token and registers."""
_MAX_LISTED = 12
_CONVOLUTIONAL = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.AvgPool2d, nn.MaxPool2d)
"""Modules whose output is `p c h w`, as is that of modules that contain one of them."""
_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)

ToGrid = Callable[[Tensor], Float[Tensor, "p c h w"]]


def to_grid_of(shape: tuple[int, ...], size: tuple[int, int], positions: PatchPositions | None) -> ToGrid | None:
    """The function that rearranges features of a shape as `p c h w`; None if they have no spatial positions.

    Args:
        shape: The shape of the features, rows first: `p c h w`, `p h w c` or `p l c`.
        size: Height and width of the image.
        positions: The positions of patches in a transformer's hidden states, if they are known.
    """
    if len(shape) == 4:
        # Channels first is tried first, as the layout of convolutions.
        if _is_grid(shape[2:], size):
            return lambda features: features
        return (lambda features: features.permute(0, 3, 1, 2)) if _is_grid(shape[1:3], size) else None
    if len(shape) != 3 or shape[2] == 1:
        return None
    if positions is not None and shape[1] == positions.length:
        return positions.to_grid
    grid = _infer_grid(shape[1], size)
    if grid is None:
        return None
    height, width = grid
    # Class tokens and registers are assumed to come first, as in all common vision transformers.
    n_extra = shape[1] - height * width
    return lambda features: features[:, n_extra:].unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _is_grid(grid: Sequence[int], size: tuple[int, int]) -> bool:
    height, width = grid
    if height * width == 1 or height > size[0] or width > size[1]:
        return False
    # The aspect ratio is that of the image, up to rounding by one cell.
    return abs(height - width * size[0] / size[1]) <= max(1.0, size[0] / size[1])


def _infer_grid(length: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid with the aspect ratio of the image that leaves the fewest of `length` tokens over."""
    for extra in range(min(_MAX_EXTRA_TOKENS, length - 2) + 1):
        width = round(math.sqrt((length - extra) * size[1] / size[0]))
        height = (length - extra) // max(1, width)
        if height * width == length - extra > 1 and _is_grid((height, width), size):
            return height, width
    return None


@dataclass(frozen=True, eq=False)
class FeatureLayer:
    """A layer whose activations can be captured: the output of a module or, for a transformer's block, its input."""

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
    """The layers with spatial positions that run, in the order in which they end.

    A layer whose shape could be a grid counts only if its cells respond to the corners of the image at their place:
    attention weights, latent arrays and patches in another order merely have such a shape.

    Args:
        module: The model.
        run: Runs it on images.
        pixels: An image.
        positions: The positions of patches in a transformer's hidden states, if they are known.
    """
    images = corner_images(pixels)
    grids: dict[str, ToGrid | None] = {}
    # The output of a position table does not depend on the image.
    parts = {name: part for name, part in module.named_modules() if name and not isinstance(part, nn.Embedding)}
    record = partial(_record_grid, grids, len(images), (pixels.shape[2], pixels.shape[3]), positions)
    handles = [part.register_forward_hook(partial(record, name)) for name, part in parts.items()]
    try:
        run(images)
    finally:
        for handle in handles:
            handle.remove()
    return [FeatureLayer(parts[name], name, to_grid) for name, to_grid in grids.items() if to_grid is not None]


def _record_grid(
    grids: dict[str, ToGrid | None],
    rows: int,
    size: tuple[int, int],
    positions: PatchPositions | None,
    name: str,
    module: nn.Module,
    _given: object,
    output: object,
) -> None:
    # A dictionary is the output of a whole model, of which it is unknown which part is used.
    tensor = None if isinstance(output, dict) else first_tensor(output)
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return
    # Reinserted, so that layers are in the order in which they end for the last time. If windows are stacked along the
    # batch axis, there are more rows than images.
    grids.pop(name, None)
    to_grid = to_grid_of(tuple(tensor.shape), size, positions) if len(tensor) == rows else None
    is_certain = (
        any(isinstance(part, _CONVOLUTIONAL) for part in module.modules())
        if tensor.ndim == 4
        else positions is not None and tensor.shape[1] == positions.length
    )
    grids[name] = to_grid if to_grid is None or is_certain or responds_in_corners(to_grid(tensor.detach())) else None


def named_layer(
    request: ActivationRequest, layers: Sequence[FeatureLayer], module: nn.Module, blocks: Sequence[str]
) -> FeatureLayer:
    """The layer that the user requested.

    Args:
        request: The request.
        layers: The layers with spatial positions.
        module: The model.
        blocks: Names of a transformer's blocks; empty for other models.

    Raises:
        OptionError: if the layer does not exist, or has no spatial positions; the message lists those that can be used.
    """
    requested = request.layer
    by_name = {layer.name: layer for layer in layers}
    if isinstance(requested, nn.Module):
        matches, shown_name = [], type(requested).__name__
    elif request.kind:
        matches, shown_name = [by_name[requested]] if requested in by_name else [], request.kind
    else:
        matches = (
            [by_name[requested]] if requested in by_name else [s for s in layers if s.name.endswith(f".{requested}")]
        )
        shown_name = repr(requested)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise OptionError(
            f"layer={shown_name} matches several layers: {', '.join(layer.name for layer in matches[:_MAX_LISTED])}."
        )
    # Most transformers read only the class token after their last block, so it is not suggested.
    top_level = [layer.name for layer in layers if layer.name.count(".") <= min(s.name.count(".") for s in layers) + 1]
    usable = [name for name in blocks[:-1] if name in by_name] or top_level
    shown = ", ".join(repr(name) for name in usable[-_MAX_LISTED:]) or "none"
    if not isinstance(requested, str) or requested in dict(module.named_modules()):
        raise OptionError(
            f"layer={shown_name} has no spatial positions, or does not run. Layers that can be used: {shown}."
        )
    close = difflib.get_close_matches(str(requested), by_name, n=1)
    hint = f"did you mean {close[0]!r}? Others are" if close else "choose from"
    raise OptionError(f"The model has no layer={shown_name}: {hint} {shown}.")


def default_layer(
    first: Sequence[FeatureLayer],
    layers: Sequence[FeatureLayer],
    run: Callable[[], Float[Tensor, "1 k"]],
    module: nn.Module,
) -> FeatureLayer:
    """The last layer on which the output depends.

    The last layer that runs may not influence the output: a decoder beside the head, the head of another task, a
    detached tensor.

    Args:
        first: Layers that are tried before the others.
        layers: The layers with spatial positions, in the order in which they end.
        run: Runs the model on an image.
        module: The model.

    Raises:
        UnsupportedError: if there is no layer with spatial positions, or the output depends on none of them in a
            differentiable way.
    """
    # A pooling layer has the features of the layer before it, at a lower resolution.
    candidates = [layer for layer in layers if not isinstance(layer.module, _POOLS)]
    if not first and not candidates:
        raise UnsupportedError(f"No layer of {type(module).__name__} has spatial positions: GradCam needs one.")
    for layer in [*first, *reversed(candidates)]:
        if is_used(layer, run):
            return layer
    raise UnsupportedError(
        f"The output of {type(module).__name__} does not depend on a layer with spatial positions in a way that "
        "PyTorch can differentiate: its head may be quantised, or read only another token. Use a perturbation method."
    )


def is_used(layer: FeatureLayer, run: Callable[[], Float[Tensor, "1 k"]]) -> bool:
    """Whether the output depends on the features of a layer: their gradient is not 0 everywhere."""
    with FeatureCapture(layer, ActivationRequest(_first)) as capture:
        outputs = run()
        if not outputs.requires_grad:
            return False
        # An unweighted sum of probabilities is constant.
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
        (leaf,) = capture.leaves()
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), leaf, retain_graph=True, allow_unused=True)
        if gradient is None or not (grid_gradient := layer.to_grid(gradient)).any():
            return False
        if grid_gradient.shape[1] != outputs.shape[1] or grid_gradient.shape[1] < 2:
            return True
        # Logits are not features: each channel of theirs influences only the logit of its own class.
        (gradient_of_first,) = torch.autograd.grad(outputs[0, 0], leaf)
        return bool(layer.to_grid(gradient_of_first)[:, 1:].any())


def _first(features: Tensor, gradients: Tensor) -> Tensor:
    return features


@final
class FeatureCapture(Capture):
    """Captures the features of one layer."""

    def __init__(self, layer: FeatureLayer, request: ActivationRequest) -> None:
        self.layer, self.request = layer, request
        self.features: Tensor | None = None
        self.handle: Any = None
        self.graphs = False

    def __enter__(self) -> "Capture":
        self.graphs = torch.is_grad_enabled()
        module = self.layer.module
        if self.layer.use_input:
            self.handle = module.register_forward_pre_hook(self._enter, with_kwargs=True)
        else:
            self.handle = module.register_forward_hook(self._leave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handle.remove()
        torch.set_grad_enabled(self.graphs)

    def _enter(self, _module: nn.Module, args: object, kwargs: object) -> Any:
        old = first_tensor((args, kwargs))
        return replaced((args, kwargs), old, self._captured(old))

    def _leave(self, _module: nn.Module, _given: object, output: object) -> Any:
        old = first_tensor(output)
        return replaced(output, old, self._captured(old))

    def _captured(self, features: Tensor | None) -> Tensor:
        assert features is not None
        torch.set_grad_enabled(True)
        # Gradients are enabled only from this layer on, which saves the graph of all layers before it.
        self.features = features.detach().requires_grad_()
        # Later layers get a copy, because they may change it in place.
        return self.features.clone()

    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        return [outputs]

    def leaves(self) -> list[Tensor]:
        assert self.features is not None
        return [self.features]

    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p h w"]:
        assert self.features is not None
        (gradient,) = gradients
        grid_gradient = self.layer.to_grid(gradient.float())
        if gradient.any() and not grid_gradient.any():
            raise UnsupportedError(
                f"The output does not depend on the patches of {self.layer.name}, but only on another token. Use an "
                "earlier layer."
            )
        return self.request.rule(self.layer.to_grid(self.features.detach().float()), grid_gradient)
