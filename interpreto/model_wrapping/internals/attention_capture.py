"""Captures the attention of requested blocks in one run of a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.capture_request import AttentionLayer, AttentionRequest, CapturedAttention
from interpreto.model_wrapping.internals.architecture import BlockStructure, first_tensor, replaced
from interpreto.model_wrapping.internals.attention_recorder import AttentionCall, AttentionRecorder
from interpreto.model_wrapping.internals.capture import Capture

NO_ONE_MAP = (
    "inside windows or over different positions in each, which gives no map of the whole input. Use GradCam or a "
    "gradient method"
)
"""Why blocks that attend over different positions cannot be explained."""
_STATES_PLACEHOLDER = object()
"""A placeholder for hidden states in the stored outputs of blocks, so that they are not kept in memory."""


@final
class AttentionCapture(Capture):
    """Captures the attention of the requested blocks.

    Args:
        structure: The blocks of the model.
        request: The request.
        count: Number of rows.
        rerun: Runs the model on this many copies of the rows.
        positions: For a number of keys, which of them can be displayed, and which are not padding.
    """

    def __init__(
        self,
        structure: BlockStructure,
        request: AttentionRequest,
        count: int,
        rerun: Callable[[int], Float[Tensor, "np k"]],
        positions: Callable[[int], tuple[Bool[Tensor, "p l"], Bool[Tensor, "p l"]]],
    ) -> None:
        self.structure, self.request, self.count, self.rerun, self.positions = (
            structure,
            request,
            count,
            rerun,
            positions,
        )
        self.blocks = request.chosen(len(structure))
        self.recorder = AttentionRecorder(gradients=request.gradients, merge=request.merge)
        self.entered = 0
        self.calls: dict[int, list[AttentionCall]] = {layer: [] for layer in self.blocks}
        self.hidden: dict[int, Tensor] = {}
        self.forms: dict[int, Any] = {}
        self.pooled: list[AttentionCall] = []
        self.last: Tensor | None = None
        self.outputs: Tensor | None = None
        self.key_masks: tuple[Tensor, Tensor] | None = None
        self.handles: list[Any] = []

    def __enter__(self) -> "Capture":
        # Hooks of blocks are removed before the recorder is switched off, so that an error in between leaves nothing
        # behind.
        self.recorder.__enter__()
        for module in dict.fromkeys(self.structure.blocks):
            self.handles.append(module.register_forward_pre_hook(self._enter))
            self.handles.append(module.register_forward_hook(self._leave))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unhook()
        self.recorder.__exit__(kind, error, trace)

    def _unhook(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _enter(self, *_: object) -> None:
        # With an objective per block and a pooler only the pooler's attention is used, so blocks are not recorded.
        records_blocks = not (self.request.per_block_objective and self.structure.pooler is not None)
        self.recorder.recording = records_blocks and self.entered in self.calls

    def _leave(self, _module: nn.Module, _given: object, output: object) -> Any:
        number, self.entered = self.entered, self.entered + 1
        calls = self.recorder.drain()
        was_recording, self.recorder.recording = self.recorder.recording, False
        if was_recording:
            self.calls[number] = [self._checked(number, calls)]
        hidden = first_tensor(output)
        assert hidden is not None
        new_hidden = hidden
        if self.request.per_block_objective:
            self.forms[number] = replaced(output, hidden, _STATES_PLACEHOLDER)
        if self.request.per_block_objective and number in self.calls:
            # Detached, so that the score of this block's output has a gradient for this block alone.
            self.hidden[number] = hidden
            torch.set_grad_enabled(False)
            new_hidden = hidden.detach()
        if number == len(self.structure) - 1:
            if hidden.ndim != 3:
                raise UnsupportedError(
                    f"{self.structure.names[number]} works on hidden states of shape {tuple(hidden.shape)}, inside "
                    "windows or on a grid: attention methods need the axes rows, positions and channels."
                )
            torch.set_grad_enabled(True)
            # The last hidden states are a leaf if nothing before them has a graph: `readout_weights` differentiates
            # with respect to them.
            new_hidden = self.last = new_hidden if new_hidden.requires_grad else new_hidden.detach().requires_grad_()
            if self.structure.pooler is not None:
                self.recorder.gradients = self.recorder.recording = True
        return None if new_hidden is hidden else replaced(output, hidden, new_hidden)

    def _checked(self, number: int, calls: list[AttentionCall]) -> AttentionCall:
        """The single attention of a block, with the axes rows, heads, queries and keys.

        Raises:
            UnsupportedError: if there is none, more than one, or one inside windows.
        """
        name = self.structure.names[number]
        if len(calls) != 1:
            raise UnsupportedError(
                f"{name} attends {len(calls)} times: this method needs one attention per block."
                if calls
                else f"The attention of {name} was not recorded in this run: it calls neither PyTorch's fused "
                "attention nor a softmax over keys."
            )
        (call,) = calls
        if self.request.values and call.value is None:
            raise UnsupportedError(
                f"This method needs queries, keys and values, but the attention code of {name} exposes only "
                "probabilities. Load the model with attn_implementation='sdpa' if it supports this, or use a method "
                "that needs only probabilities: LeGrad, GenericAttention, AttentionSaliency."
            )
        # Windows are stacked along the batch axis.
        if call.probabilities.ndim == 4 and len(call.probabilities) != self.count:
            raise UnsupportedError(
                f"{name} attends inside windows of the image ({len(call.probabilities) // self.count} each), "
                "which gives no map of the whole image. Use GradCam or a gradient method."
            )
        return call

    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        self.outputs = outputs
        self.pooled = self.recorder.drain()
        self.recorder.recording = False
        self._check_lengths()
        if not self.request.per_block_objective:
            return [outputs]
        hidden = [self._read(self.hidden[layer]) for layer in self.blocks]
        self._unhook()
        # One run of the layers after the blocks serves the outputs of all blocks, side by side along the batch axis.
        with self._skipping(torch.cat(hidden, dim=self.structure.batch)):
            outputs_per_block = self.rerun(len(hidden))
        self.pooled = self.recorder.drain()
        self.recorder.recording = False
        return list(outputs_per_block.split(self.count))

    def _check_lengths(self) -> None:
        """Check that all blocks work on the same positions.

        Raises:
            UnsupportedError: if they do not, as if patches are merged between blocks.
        """
        keys = [call.probabilities.shape[-1] for call in self._block_calls()]
        states = [hidden.shape[1 - self.structure.batch] for hidden in self.hidden.values()]
        for lengths in (keys, states):
            if len(shown := list(dict.fromkeys(lengths))) > 1:
                raise UnsupportedError(f"The blocks of this model attend over {shown} positions, {NO_ONE_MAP}.")

    def _read(self, hidden: Tensor) -> Tensor:
        """A block's output as the head reads it: averaged over positions if requested, unless a pooler reads it."""
        if self.request.readout == "model" or self.structure.pooler is not None:
            return hidden
        return hidden.mean(1 - self.structure.batch, keepdim=True).expand_as(hidden)

    @contextmanager
    def _skipping(self, states: Tensor) -> Iterator[None]:
        """Run the model without its blocks, as if the last one had returned these states.

        A pooler gets them as they are: LeGrad's reference code omits the normalization layers around it.
        """
        modules = list(dict.fromkeys(self.structure.blocks))
        entered = 0

        def skipped(*args: object, **kwargs: object) -> Any:
            nonlocal entered
            number, entered = entered, entered + 1
            # Earlier blocks pass their input on, in the form of their recorded output.
            if number < len(self.structure) - 1:
                hidden = first_tensor((args, kwargs))
            else:
                torch.set_grad_enabled(True)
                self.recorder.recording = self.structure.pooler is not None
                hidden = states
            return replaced(self.forms[number], _STATES_PLACEHOLDER, hidden)

        torch.set_grad_enabled(False)
        norms = self.structure.norms if self.structure.pooler is not None else ()
        original_forwards = {module: module.__dict__.get("forward") for module in (*modules, *norms)}
        for module in modules:
            # An instance attribute takes precedence over the method of the class, and deleting it restores the module.
            module.__dict__["forward"] = skipped
        for module in norms:
            module.__dict__["forward"] = lambda hidden: hidden
        try:
            yield
        finally:
            for module, forward in original_forwards.items():
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward

    def leaves(self) -> list[Tensor]:
        if not self.request.gradients:
            return []
        calls = self._pooler_calls() + self._block_calls()
        return [call.probabilities for call in calls] + (
            [call.output for call in calls if call.output is not None] if self.request.values else []
        )

    def _block_calls(self) -> list[AttentionCall]:
        return [call for layer in self.blocks for call in self.calls[layer]]

    def _pooler_calls(self) -> list[AttentionCall]:
        return self.pooled[:1] if self.structure.pooler is not None else []

    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p l"]:
        calls = self._pooler_calls() + self._block_calls()
        attention_gradients = gradients[: len(calls)]
        output_gradients = list(gradients[len(calls) :]) + [None] * len(calls)
        layers = [
            layer
            for number, call in enumerate(calls)
            for layer in self._layers(
                call, attention_gradients[number] if attention_gradients else None, output_gradients[number]
            )
        ]
        poolers = len(layers) - len(self._block_calls())
        displayable, not_padding = self._key_masks(layers[0].attention)
        return self.request.rule(
            CapturedAttention(
                tuple(layers[poolers:]), tuple(layers[:poolers]), lambda: self.readout_weights, displayable, not_padding
            )
        )

    def _key_masks(self, attention: Float[Tensor, "p h q k"]) -> tuple[Bool[Tensor, "p k"], Bool[Tensor, "p k"]]:
        """Which keys can be displayed, and which are not padding: the same for all targets."""
        if self.key_masks is None:
            displayable, not_padding = self.positions(attention.shape[-1])
            self.key_masks = displayable.to(attention.device), not_padding.to(attention.device)
        return self.key_masks

    def _layers(
        self, call: AttentionCall, gradient: Tensor | None, output_gradient: Tensor | None
    ) -> list[AttentionLayer]:
        """An attention call as a layer; as several layers if the model ran on the outputs of several blocks at once."""
        attention = self._heads(call.probabilities.detach()).float()
        if gradient is not None:
            gradient = self._heads(gradient.float())
            # The mask is unknown if the model applies it in its own code; forbidden keys have probability 0.
            allowed = attention > 0 if call.value is None else call.allowed
            gradient = gradient if allowed is None else gradient * allowed
        if len(attention) > self.count:
            parts = attention.split(self.count)
            slopes = [None] * len(parts) if gradient is None else gradient.split(self.count)
            return [AttentionLayer(part, slope) for part, slope in zip(parts, slopes, strict=True)]
        if not self.request.values:
            return [AttentionLayer(attention, gradient)]
        query, key, value, output = (
            None if tensor is None else tensor.detach().float()
            for tensor in (call.query, call.key, call.value, call.output)
        )
        slope = None if output_gradient is None else output_gradient.float()
        return [AttentionLayer(attention, gradient, query, key, value, output, slope, _projection(call))]

    def _heads(self, tensor: Tensor) -> Float[Tensor, "p h q k"]:
        """Separate rows and heads, which some models join in one axis."""
        return tensor if tensor.ndim == 4 else tensor.reshape(self.count, -1, *tensor.shape[-2:])

    @cached_property
    def readout_weights(self) -> Float[Tensor, "p l"]:
        """The weights with which the output reads the positions after the last block."""
        assert self.outputs is not None
        # Different weights per output: an unweighted sum of probabilities is constant, so that its gradient is 0.
        weights = torch.linspace(1, 2, self.outputs.shape[1], device=self.outputs.device)
        total = (self.outputs * weights).sum()
        pooler_calls = self._pooler_calls()
        leaf = pooler_calls[0].probabilities if pooler_calls else self.last
        assert leaf is not None
        # A position is read if the gradient of the output with respect to it is not 0.
        (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True)
        if pooler_calls:
            is_read = (self._heads(gradient) != 0).any(3).any(1).float()
            is_read = is_read / is_read.sum(-1, keepdim=True).clamp(min=1)
            weights_of_keys = torch.einsum("pq,pqk->pk", is_read, self._heads(leaf.detach()).float().mean(1))
            assert self.last is not None
            # A pooler may not see the tokens before the patches; their weight is 0.
            return functional.pad(
                weights_of_keys, (self.last.shape[1 - self.structure.batch] - weights_of_keys.shape[1], 0)
            )
        is_read = (gradient.movedim(self.structure.batch, 0) != 0).any(-1).float()
        if not is_read.any(1).all():
            raise UnsupportedError(
                "The score does not depend on any position after the last block, as after a saturated activation: the "
                "positions that the output reads cannot be determined."
            )
        return is_read / is_read.sum(-1, keepdim=True).clamp(min=1)


def _projection(call: AttentionCall) -> Callable[[Tensor], Tensor] | None:
    if call.projection is None:
        return None
    weight, bias = (None if part is None else part.detach().float() for part in call.projection)
    assert weight is not None
    return lambda joined: functional.linear(joined, weight, bias)
