"""Runs models for requests that capture internals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.capture_request import ActivationRequest, AttentionRequest, CaptureRequest
from interpreto.model_wrapping.execution.precision import at_least_float32
from interpreto.model_wrapping.internals.architecture import BlockStructure, NoBlocksError, discover_blocks
from interpreto.model_wrapping.internals.attention_capture import NO_ONE_MAP, AttentionCapture
from interpreto.model_wrapping.internals.attention_implementation import use_recordable_attention
from interpreto.model_wrapping.internals.capture import Capture
from interpreto.model_wrapping.internals.feature_capture import (
    FeatureCapture,
    FeatureLayer,
    default_layer,
    feature_layers,
    named_layer,
)
from interpreto.model_wrapping.internals.patch_positions import (
    PatchPositions,
    later_positions,
    length_before_last,
    patch_positions,
)
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, Targets
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import device_of

_N_DISCOVERY_ROWS = 2
"""Number of rows with which blocks are discovered; two distinguish the batch axis from that of positions."""


class CaptureEngine:
    """Runs a model for requests that capture internals.

    The blocks of a model are discovered once, with its first rows; the positions of patches, once per image size.

    Args:
        module: The model.
        outputs: Runs it.
        pixels: The field of rows that contains an image; None if positions are tokens.
        words: Which tokens of rows are not special tokens.
        ragged: Whether rows are padded to the longest row of their batch, rather than to a length of the model's own.
    """

    def __init__(
        self,
        module: nn.Module,
        outputs: Callable[[Rows], Float[Tensor, "p k"]],
        pixels: str | None = None,
        words: Callable[[Rows], Bool[Tensor, "p l"]] | None = None,
        ragged: bool = False,
    ) -> None:
        self.ragged = ragged
        self.module, self.outputs, self.pixels, self.words = module, outputs, pixels, words
        self._structure: BlockStructure | None = None
        self._no_blocks = ""
        self._positions: dict[tuple[tuple[int, ...], int | None], PatchPositions | None] = {}
        self._layers: dict[tuple[int, ...], list[FeatureLayer]] = {}
        self._default: dict[tuple[int, ...], FeatureLayer] = {}
        self._used_layer = ""

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests as one batch and return scores of positions.

        There is at most one backward pass per target.

        Raises:
            UnsupportedError: if the model does not have the requested internals.
            OptionError: if a requested layer does not exist.
        """
        rows, capture_request = (
            Rows.join([request.rows for request in requests], device_of(self.module)),
            requests[0].capture,
        )
        assert capture_request is not None
        sizes = [len(request.rows) for request in requests]
        # no_grad: the capture enables gradients itself, at the first layer that needs them.
        with torch.no_grad(), use_recordable_attention(self.module), self._capture(capture_request, rows) as capture:
            outputs = self.outputs(rows)
            # Reported scores are those of the model, also if the objectives are computed per block.
            plain_outputs = outputs.detach().split(sizes)
            objectives = [part.split(sizes) for part in capture.objectives(outputs)]
            selected = [
                [self._objective(request).select(part) for request, part in zip(requests, parts, strict=True)]
                for parts in objectives
            ]
            counts = [scores.shape[1] for scores in selected[0]]
            maps = self._maps(capture, selected, max(counts))
        return [
            ModelResponse(
                at_least_float32(request.targets.select(part)).cpu(),
                outputs=at_least_float32(part).cpu() if request.return_outputs else None,
                captured=self._on_grid(capture_request, request.rows, rows, own_maps[:, :count].float()).cpu(),
            )
            for request, part, own_maps, count in zip(requests, plain_outputs, maps.split(sizes), counts, strict=True)
        ]

    @staticmethod
    def _objective(request: ModelRequest) -> Targets:
        """The targets that are differentiated: those of the request, unless the capture has an objective of its own."""
        return request.targets if request.capture is None else request.capture.differentiated(request.targets)

    def notes(self) -> dict[str, str]:
        """For the record of a result: the layer whose activations were captured."""
        return {"layer": self._used_layer} if self._used_layer else {}

    def _maps(self, capture: Capture, objectives: Sequence[Sequence[Tensor]], count: int) -> Float[Tensor, "p t ..."]:
        leaves, maps = capture.leaves(), []
        for target in range(count if leaves else 1):
            gradients: list[Tensor] = []
            if leaves:
                target_scores = [
                    scores[:, target] for parts in objectives for scores in parts if target < scores.shape[1]
                ]
                # Rows do not influence each other, so the gradient of the sum is that of each row's own score.
                objective = torch.cat(target_scores).sum()
                if not objective.requires_grad:
                    raise UnsupportedError(
                        f"The output of {type(self.module).__name__} does not depend on "
                        f"{self._used_layer or 'its attention'} in a way that PyTorch can differentiate: it may read "
                        "only another token. Use another layer, or a perturbation method."
                    )
                grads = torch.autograd.grad(objective, leaves, retain_graph=True, allow_unused=True)
                gradients = [
                    torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True)
                ]
            maps.append(capture.scores(gradients).detach())
        # Without gradients the map is the same for all targets.
        return torch.stack(maps if leaves else maps * count, dim=1)

    def _capture(self, capture_request: CaptureRequest, rows: Rows) -> Capture:
        if isinstance(capture_request, ActivationRequest):
            return FeatureCapture(self._feature_layer(capture_request, rows), capture_request)
        assert isinstance(capture_request, AttentionRequest)
        structure = self.structure(rows)
        if self.pixels is not None:
            # Before the captured run, because locating patches runs the model too.
            self.positions(rows)

        def rerun(times: int) -> Float[Tensor, "np k"]:
            return self.outputs(Rows.join([rows] * times))

        def masks_of_keys(length: int) -> tuple[Bool[Tensor, "p l"], Bool[Tensor, "p l"]]:
            ones = torch.ones(len(rows), length, dtype=torch.bool)
            return self._displayable(rows, length), rows.fields["attention_mask"].bool() if self.ragged else ones

        return AttentionCapture(structure, capture_request, len(rows), rerun, masks_of_keys)

    def _displayable(self, rows: Rows, length: int) -> Bool[Tensor, "p l"]:
        """Which of `length` positions can be displayed."""
        displayable = torch.zeros(len(rows), length, dtype=torch.bool)
        if self.words is not None:
            # A model may pad texts, or append tokens of its own.
            words = self.words(rows)
            displayable[:, : words.shape[1]] = words
        elif self.pixels is None:
            displayable[:] = True
        positions = None if self.pixels is None else self.positions(rows, length)
        if positions is not None and length == positions.length:
            displayable[:, positions.grid.flatten()] = True
        elif positions is not None and length == positions.grid.numel():
            displayable[:] = True
        return displayable

    def structure(self, rows: Rows) -> BlockStructure:
        """The blocks of the model.

        Raises:
            UnsupportedError: if there is no attention, or none that can be captured.
        """
        structure = self._blocks(rows)
        if structure is None:
            raise UnsupportedError(self._no_blocks)
        towers = dict.fromkeys(structure.kinds)
        if len(towers) > 1:
            reason = (
                "several towers: attention methods support one tower"
                if self.pixels is None
                else f"several stages, {NO_ONE_MAP}"
            )
            raise UnsupportedError(f"{type(self.module).__name__} attends in {', '.join(towers)}, {reason}.")
        return structure

    def _blocks(self, rows: Rows) -> BlockStructure | None:
        """The blocks, discovered with the first of these rows if necessary; None if there are none (`_no_blocks`)."""
        if self._structure is None and not self._no_blocks:
            copies = rows.take(slice(1)).expand(_N_DISCOVERY_ROWS)
            try:
                self._structure = discover_blocks(self.module, lambda: self.outputs(copies), _N_DISCOVERY_ROWS)
            except NoBlocksError as error:
                self._no_blocks = str(error)
        return self._structure

    def positions(self, rows: Rows, length: int | None = None) -> PatchPositions | None:
        """The position of every patch of images of this size; None if patches are not on a grid.

        Args:
            rows: Images.
            length: Number of positions of the sequence; None for the input of the first block.
        """
        assert self.pixels is not None
        pixels = rows.fields[self.pixels][:1]
        size, structure = tuple(pixels.shape[1:]), self._blocks(rows)
        if structure is None:
            return None
        run = partial(self._run_on, rows.take(slice(1)))
        if (size, None) not in self._positions:
            self._positions[size, None] = patch_positions(structure, run, pixels)
        first = self._positions[size, None]
        if first is None or length in (None, first.length, first.grid.numel()):
            return first
        if (size, length) not in self._positions:
            self._positions[size, length] = later_positions(structure, run, pixels, first, length)
        return self._positions[size, length]

    def _run_on(self, one: Rows, images: Float[Tensor, "p c H W"]) -> Float[Tensor, "p k"]:
        """Run copies of a row with other images."""
        assert self.pixels is not None
        return self.outputs(one.expand(len(images), **{self.pixels: images}))

    def _feature_layer(self, capture_request: ActivationRequest, rows: Rows) -> FeatureLayer:
        assert self.pixels is not None
        pixels, single_row = rows.fields[self.pixels][:1], rows.take(slice(1))
        size = tuple(pixels.shape[1:])
        positions, structure = self.positions(rows), self._blocks(rows)
        if size not in self._layers:
            self._layers[size] = feature_layers(self.module, partial(self._run_on, single_row), pixels, positions)
        layers = self._layers[size]
        # If patches are merged between stages, the blocks do not share one grid.
        blocks = () if structure is None or len(set(structure.kinds)) > 1 else structure.names
        if capture_request.layer is not None:
            layer = named_layer(capture_request, layers, self.module, blocks)
        else:
            if size not in self._default:
                preferred = (
                    [] if structure is None or not blocks else self._before_last_block(structure, single_row, layers)
                )
                hidden_layers = layers if structure is None else _hidden_states(structure, layers)
                self._default[size] = default_layer(
                    preferred, hidden_layers, partial(self.outputs, single_row), self.module
                )
            layer = self._default[size]
        self._used_layer = layer.name
        return layer

    def _before_last_block(
        self, structure: BlockStructure, one: Rows, layers: Sequence[FeatureLayer]
    ) -> list[FeatureLayer]:
        """The input of the last block, if it is on a grid: of its output, only the class token may be read."""
        assert self.pixels is not None
        last_block, name = structure.blocks[-1], f"the input of {structure.names[-1]}"
        length = length_before_last(structure, partial(self._run_on, one), one.fields[self.pixels])
        positions = None if length is None else self.positions(one, length)
        if positions is not None and positions.length == length:
            return [FeatureLayer(last_block, name, partial(_at_positions, positions, structure.batch), use_input=True)]
        # After convolutions a patch is not a square of the image, so that positions cannot be located; the shape of the
        # grid is known from the block's output.
        return [replace(layer, name=name, use_input=True) for layer in layers if layer.name == structure.names[-1]]

    def _on_grid(self, capture_request: CaptureRequest, rows: Rows, batch: Rows, maps: Any) -> Float[Tensor, "p t ..."]:
        """Arrange scores of positions as a map of the image, or cut the padding of a text.

        Args:
            capture_request: The captured request.
            rows: The rows to which the scores belong.
            batch: All rows of the batch.
            maps: The scores.
        """
        if isinstance(capture_request, ActivationRequest):
            return maps
        if self.pixels is None:
            length = _tokens(batch)
            if self.ragged and maps.shape[-1] != length:
                raise UnsupportedError(
                    f"The attention of {type(self.module).__name__} has {maps.shape[-1]} keys for {length} tokens: "
                    "keys cannot be assigned to tokens."
                )
            return maps[..., : _tokens(rows)]
        positions = self.positions(rows, maps.shape[-1])
        if positions is not None and maps.shape[-1] == positions.grid.numel():
            # The pooler of some models reads only the patches.
            return maps.unflatten(-1, tuple(positions.grid.shape))
        if positions is None or maps.shape[-1] != positions.length:
            raise UnsupportedError(
                f"The patches of {type(self.module).__name__} are not on one grid among the keys of its attention, "
                "which gives no map. Use GradCam or a gradient method."
            )
        return maps[..., positions.grid.to(maps.device)]


def _tokens(rows: Rows) -> int:
    """Number of tokens of rows of texts, including padding."""
    return rows.fields["input_ids"].shape[1]


def _hidden_states(structure: BlockStructure, layers: Sequence[FeatureLayer]) -> list[FeatureLayer]:
    """The layers that output hidden states: blocks and normalization layers, not the projections inside blocks."""
    prefixes = tuple(f"{name}." for name in structure.names)
    return [
        layer
        for layer in layers
        if not layer.name.startswith(prefixes) or "norm" in type(layer.module).__name__.lower()
    ]


def _at_positions(positions: PatchPositions, batch: int, features: Tensor) -> Float[Tensor, "p c h w"]:
    return positions.to_grid(features.movedim(batch, 0))
