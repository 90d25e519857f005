"""Responses to requests that capture internals of a model."""

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
from interpreto.model_wrapping.internals.architecture import BlockStructure, discover_blocks
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

_EXPLORERS = 2
"""Rows with which a model is explored; two tell the axis of rows from that of positions."""


class CaptureEngine:
    """What a wrapper needs to answer about the inside of its model.

    A model is explored once, on its first rows; where patches lie, once per size of image.

    Args:
        module: The model.
        outputs: Runs it.
        pixels: The field of rows that holds an image; None where positions are tokens.
        words: Which tokens of rows are none that a tokenizer adds.
        ragged: Whether rows of a batch are filled up to the longest, rather than to a length of the model's own.
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
        self._anatomy: BlockStructure | str | None = None
        self._positions: dict[tuple[tuple[int, ...], int | None], PatchPositions | None] = {}
        self._spots: dict[tuple[int, ...], list[FeatureLayer]] = {}
        self._default: dict[tuple[int, ...], FeatureLayer] = {}
        self._used_layer = ""

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests as one batch, with scores of positions, by one backward pass per target at most.

        Raises:
            UnsupportedError: if the model does not have the requested internals.
            OptionError: if a requested layer does not exist.
        """
        rows, probe = Rows.join([request.rows for request in requests], device_of(self.module)), requests[0].capture
        assert probe is not None
        sizes = [len(request.rows) for request in requests]
        with torch.no_grad(), use_recordable_attention(self.module), self._watch(probe, rows) as watch:
            outputs = self.outputs(rows)
            plain = outputs.detach().split(sizes)
            objectives = [part.split(sizes) for part in watch.objectives(outputs)]
            selected = [
                [self._objective(request).select(part) for request, part in zip(requests, parts, strict=True)]
                for parts in objectives
            ]
            counts = [scores.shape[1] for scores in selected[0]]
            maps = self._maps(watch, selected, max(counts))
        return [
            ModelResponse(
                at_least_float32(request.targets.select(part)).cpu(),
                outputs=at_least_float32(part).cpu() if request.return_outputs else None,
                captured=self._folded(probe, request.rows, rows, own[:, :count].float()).cpu(),
            )
            for request, part, own, count in zip(requests, plain, maps.split(sizes), counts, strict=True)
        ]

    @staticmethod
    def _objective(request: ModelRequest) -> Targets:
        """What is differentiated: the targets, unless the capture has an objective of its own."""
        capture = request.capture
        if isinstance(capture, AttentionRequest) and capture.objective is not None:
            return capture.objective(request.targets)
        return request.targets

    def notes(self) -> dict[str, str]:
        """What the record of a result should say: the layer whose features were watched."""
        return {"layer": self._used_layer} if self._used_layer else {}

    def _maps(self, watch: Capture, found: Sequence[Sequence[Tensor]], count: int) -> Float[Tensor, "p t ..."]:
        leaves, maps = watch.leaves(), []
        for target in range(count if leaves else 1):
            gradients: list[Tensor] = []
            if leaves:
                own = [scores[:, target] for parts in found for scores in parts if target < scores.shape[1]]
                objective = torch.cat(own).sum()
                if not objective.requires_grad:
                    raise UnsupportedError(
                        f"The output of {type(self.module).__name__} does not rest on "
                        f"{self._used_layer or 'its attention'} in a way that PyTorch can differentiate: it may read "
                        "another token alone. Take another layer, or a method that hides parts."
                    )
                slopes = torch.autograd.grad(objective, leaves, retain_graph=True, allow_unused=True)
                gradients = [
                    torch.zeros_like(leaf) if slope is None else slope
                    for slope, leaf in zip(slopes, leaves, strict=True)
                ]
            maps.append(watch.scores(gradients).detach())
        # Without gradients there is one map, whatever the target.
        return torch.stack(maps if leaves else maps * count, dim=1)

    def _watch(self, probe: CaptureRequest, rows: Rows) -> Capture:
        if isinstance(probe, ActivationRequest):
            return FeatureCapture(self._spot(probe, rows), probe)
        anatomy = self.anatomy(rows)
        if self.pixels is not None:
            # Before the run that is watched, for finding patches runs the model too.
            self.positions(rows)

        def again(times: int) -> Float[Tensor, "np k"]:
            return self.outputs(Rows.join([rows] * times))

        def places(length: int) -> tuple[Bool[Tensor, "p l"], Bool[Tensor, "p l"]]:
            every = torch.ones(len(rows), length, dtype=torch.bool)
            return self._shown(rows, length), rows.fields["attention_mask"].bool() if self.ragged else every

        return AttentionCapture(anatomy, probe, len(rows), again, places)

    def _shown(self, rows: Rows, length: int) -> Bool[Tensor, "p l"]:
        """Which of so many positions can be shown to a person."""
        found = torch.zeros(len(rows), length, dtype=torch.bool)
        if self.words is not None:
            # A model may fill texts up, or put tokens of its own behind them.
            words = self.words(rows)
            found[:, : words.shape[1]] = words
        elif self.pixels is None:
            found[:] = True
        positions = None if self.pixels is None else self.positions(rows, length)
        if positions is not None and length == positions.length:
            found[:, positions.grid.flatten()] = True
        elif positions is not None and length == positions.grid.numel():
            found[:] = True
        return found

    def anatomy(self, rows: Rows) -> BlockStructure:
        """Where attention happens.

        Raises:
            UnsupportedError: if there is no attention, or none that can be watched.
        """
        found = self._explored(rows)
        if isinstance(found, str):
            raise UnsupportedError(found)
        towers = dict.fromkeys(found.kinds)
        if len(towers) > 1:
            why = (
                "several towers: methods that look at attention know what to do with one"
                if self.pixels is None
                else f"several stages, {NO_ONE_MAP}"
            )
            raise UnsupportedError(f"{type(self.module).__name__} attends in {', '.join(towers)}, {why}.")
        return found

    def _explored(self, rows: Rows) -> BlockStructure | str:
        """The anatomy or why there is none; found with the first of these rows if it is not known yet."""
        if self._anatomy is None:
            some = rows.take(slice(1)).expand(_EXPLORERS)
            self._anatomy = discover_blocks(self.module, lambda: self.outputs(some), _EXPLORERS)
        return self._anatomy

    def positions(self, rows: Rows, length: int | None = None) -> PatchPositions | None:
        """The position of every patch of images of this size; None where there is no such grid.

        Args:
            rows: Images.
            length: In sequences of how many positions; None is what the first block is given.
        """
        assert self.pixels is not None
        pixels = rows.fields[self.pixels][:1]
        size, anatomy = tuple(pixels.shape[1:]), self._explored(rows)
        if isinstance(anatomy, str):
            return None
        run = partial(self._run_on, rows.take(slice(1)))
        if (size, None) not in self._positions:
            self._positions[size, None] = patch_positions(anatomy, run, pixels)
        first = self._positions[size, None]
        if first is None or length in (None, first.length, first.grid.numel()):
            return first
        if (size, length) not in self._positions:
            self._positions[size, length] = later_positions(anatomy, run, pixels, first, length)
        return self._positions[size, length]

    def _run_on(self, one: Rows, images: Float[Tensor, "p c H W"]) -> Float[Tensor, "p k"]:
        """Run copies of a row with other images."""
        assert self.pixels is not None
        return self.outputs(one.expand(len(images), **{self.pixels: images}))

    def _spot(self, probe: ActivationRequest, rows: Rows) -> FeatureLayer:
        assert self.pixels is not None
        pixels, one = rows.fields[self.pixels][:1], rows.take(slice(1))
        size = tuple(pixels.shape[1:])
        positions, anatomy = self.positions(rows), self._explored(rows)
        if size not in self._spots:
            self._spots[size] = feature_layers(self.module, partial(self._run_on, one), pixels, positions)
        known = self._spots[size]
        # Where patches are merged on the way, there is no one grid of all blocks.
        blocks = () if isinstance(anatomy, str) or len(set(anatomy.kinds)) > 1 else anatomy.names
        if probe.layer is not None:
            spot = named_layer(probe, known, self.module, blocks)
        else:
            if size not in self._default:
                first = [] if isinstance(anatomy, str) or not blocks else self._before_last_block(anatomy, one, known)
                others = known if isinstance(anatomy, str) else _hidden_states(anatomy, known)
                self._default[size] = default_layer(first, others, partial(self.outputs, one), self.module)
            spot = self._default[size]
        self._used_layer = spot.name
        return spot

    def _before_last_block(
        self, anatomy: BlockStructure, one: Rows, known: Sequence[FeatureLayer]
    ) -> list[FeatureLayer]:
        """What enters the last block, if it has places: after it a model may read nothing but its class token."""
        assert self.pixels is not None
        last, name = anatomy.blocks[-1], f"the input of {anatomy.names[-1]}"
        length = length_before_last(anatomy, partial(self._run_on, one), one.fields[self.pixels])
        positions = None if length is None else self.positions(one, length)
        if positions is not None and positions.length == length:
            return [FeatureLayer(last, name, partial(_at_positions, positions, anatomy.batch), use_input=True)]
        # Behind convolutions a patch is no square of the image; the form of the grid is known all the same.
        return [replace(spot, name=name, use_input=True) for spot in known if spot.name == anatomy.names[-1]]

    def _folded(self, probe: CaptureRequest, rows: Rows, batch: Rows, found: Any) -> Float[Tensor, "p t ..."]:
        """Scores of positions as a map of the image, or of the text without the padding of longer ones.

        Args:
            probe: What was asked.
            rows: Whose scores they are.
            batch: These and all that shared their batch.
            found: The scores.
        """
        if isinstance(probe, ActivationRequest):
            return found
        if self.pixels is None:
            length = _tokens(batch)
            if self.ragged and found.shape[-1] != length:
                raise UnsupportedError(
                    f"The attention of {type(self.module).__name__} has {found.shape[-1]} keys for {length} tokens: "
                    "which key is which token cannot be known."
                )
            return found[..., : _tokens(rows)]
        positions = self.positions(rows, found.shape[-1])
        if positions is not None and found.shape[-1] == positions.grid.numel():
            # A pooler may be shown the patches alone.
            return found.unflatten(-1, tuple(positions.grid.shape))
        if positions is None or found.shape[-1] != positions.length:
            raise UnsupportedError(
                f"The patches of {type(self.module).__name__} do not lie on one grid among the keys of its attention, "
                "so no map can be made. GradCam and methods that take gradients do without."
            )
        return found[..., positions.grid.to(found.device)]


def _tokens(rows: Rows) -> int:
    """How many tokens rows of texts have, padding included."""
    return rows.fields["input_ids"].shape[1]


def _hidden_states(anatomy: BlockStructure, known: Sequence[FeatureLayer]) -> list[FeatureLayer]:
    """Layers that give a transformer's hidden states: blocks and what normalises them, not their projections."""
    inside = tuple(f"{name}." for name in anatomy.names)
    return [spot for spot in known if not spot.name.startswith(inside) or "norm" in type(spot.module).__name__.lower()]


def _at_positions(positions: PatchPositions, batch: int, features: Tensor) -> Float[Tensor, "p c h w"]:
    return positions.to_grid(features.movedim(batch, 0))
