"""A run of a model whose attention is watched."""

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
    "inside windows or over other positions in each: no map of the whole input can be made of that. GradCam and "
    "methods that take gradients do without"
)
"""Why blocks that attend over different positions give no map."""
_STATES = object()
"""Where hidden states stand in what a block returns; these themselves are not kept."""


@final
class AttentionCapture(Capture):
    """Attention of the asked blocks.

    Args:
        anatomy: Of the model.
        probe: What is asked.
        count: How many rows run.
        again: Runs the model on the rows this many times over, side by side.
        positions: For a length of the keys, which of them can be shown to a person, and which are real.
    """

    def __init__(
        self,
        anatomy: BlockStructure,
        probe: AttentionRequest,
        count: int,
        again: Callable[[int], Float[Tensor, "np k"]],
        positions: Callable[[int], tuple[Bool[Tensor, "p l"], Bool[Tensor, "p l"]]],
    ) -> None:
        self.anatomy, self.probe, self.count, self.again, self.positions = anatomy, probe, count, again, positions
        self.wanted = probe.chosen(len(anatomy))
        self.tap = AttentionRecorder(gradients=probe.gradients, merge=probe.merge)
        self.entered = 0
        self.calls: dict[int, list[AttentionCall]] = {layer: [] for layer in self.wanted}
        self.hidden: dict[int, Tensor] = {}
        self.forms: dict[int, Any] = {}
        self.pooled: list[AttentionCall] = []
        self.last: Tensor | None = None
        self.outputs: Tensor | None = None
        self.places: tuple[Tensor, Tensor] | None = None
        self.handles: list[Any] = []

    def __enter__(self) -> "Capture":
        # The blocks are left before the tap is, so that a failure between them leaves nothing behind.
        self.tap.__enter__()
        for module in dict.fromkeys(self.anatomy.blocks):
            self.handles.append(module.register_forward_pre_hook(self._enter))
            self.handles.append(module.register_forward_hook(self._leave))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unhook()
        self.tap.__exit__(kind, error, trace)

    def _unhook(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _enter(self, *_: Any) -> None:
        # A pooler sees the states by block; what happens inside the blocks is then asked by nobody.
        inside = not (self.probe.per_block_objective and self.anatomy.pooler is not None)
        self.tap.open = inside and self.entered in self.calls

    def _leave(self, _module: nn.Module, _given: Any, output: Any) -> Any:
        number, self.entered = self.entered, self.entered + 1
        calls = self.tap.drain()
        opened, self.tap.open = self.tap.open, False
        if opened:
            self.calls[number] = [self._checked(number, calls)]
        hidden = first_tensor(output)
        assert hidden is not None
        changed = hidden
        if self.probe.per_block_objective:
            self.forms[number] = replaced(output, hidden, _STATES)
        if self.probe.per_block_objective and number in self.calls:
            # The score of this block's output is to reach this block alone.
            self.hidden[number] = hidden
            torch.set_grad_enabled(False)
            changed = hidden.detach()
        if number == len(self.anatomy) - 1:
            if hidden.ndim != 3:
                raise UnsupportedError(
                    f"{self.anatomy.names[number]} works on hidden states of shape {tuple(hidden.shape)}, inside "
                    "windows or on a grid: methods that look at attention need rows, positions and channels."
                )
            torch.set_grad_enabled(True)
            changed = self.last = changed if changed.requires_grad else changed.detach().requires_grad_()
            if self.anatomy.pooler is not None:
                self.tap.gradients = self.tap.open = True
        return None if changed is hidden else replaced(output, hidden, changed)

    def _checked(self, number: int, calls: list[AttentionCall]) -> AttentionCall:
        """The one attention of a block, as rows, heads, queries and keys.

        Raises:
            UnsupportedError: if there is none, more than one, or one inside of windows.
        """
        name = self.anatomy.names[number]
        if len(calls) != 1:
            raise UnsupportedError(
                f"{name} attends {len(calls)} times: this method knows what to do with one attention per block."
                if calls
                else f"The attention of {name} was not seen in this run: it calls neither PyTorch's fused attention "
                "nor a softmax over keys."
            )
        (call,) = calls
        if self.probe.values and call.value is None:
            raise UnsupportedError(
                f"This method needs queries, keys and values, and {name} has attention code of its own that shows "
                "probabilities alone. Load the model with attn_implementation='sdpa' if it can, or use a method that "
                "does without: LeGrad, GenericAttention, AttentionSaliency."
            )
        if call.probabilities.ndim == 4 and len(call.probabilities) != self.count:
            raise UnsupportedError(
                f"{name} attends inside windows of the image ({len(call.probabilities) // self.count} each): a map of "
                "the whole image cannot be made of that. GradCam and methods that take gradients do without."
            )
        return call

    def objectives(self, outputs: Float[Tensor, "p k"]) -> list[Float[Tensor, "p k"]]:
        self.outputs = outputs
        self.pooled = self.tap.drain()
        self.tap.open = False
        self._check_lengths()
        if not self.probe.per_block_objective:
            return [outputs]
        hidden = [self._read(self.hidden[layer]) for layer in self.wanted]
        self._unhook()
        with self._skipping(torch.cat(hidden, dim=self.anatomy.batch)):
            found = self.again(len(hidden))
        self.pooled = self.tap.drain()
        self.tap.open = False
        return list(found.split(self.count))

    def _check_lengths(self) -> None:
        """Refuse blocks that work on different positions.

        Raises:
            UnsupportedError: if there are some, as where patches are merged between blocks.
        """
        keys = [call.probabilities.shape[-1] for call in self._block_calls()]
        states = [hidden.shape[1 - self.anatomy.batch] for hidden in self.hidden.values()]
        for lengths in (keys, states):
            if len(shown := list(dict.fromkeys(lengths))) > 1:
                raise UnsupportedError(f"The blocks of this model attend over {shown} positions, {NO_ONE_MAP}.")

    def _read(self, hidden: Tensor) -> Tensor:
        """A block's output as the head is to see it; a pooler sees it as it is."""
        if self.probe.readout == "model" or self.anatomy.pooler is not None:
            return hidden
        return hidden.mean(1 - self.anatomy.batch, keepdim=True).expand_as(hidden)

    @contextmanager
    def _skipping(self, states: Tensor) -> Iterator[None]:
        """Run the model without its blocks, as if the last one had returned these states.

        A pooler is given them as they are: LeGrad's authors leave out the normalisations around it.
        """
        modules = list(dict.fromkeys(self.anatomy.blocks))
        entered = 0

        def skipped(*args: Any, **kwargs: Any) -> Any:
            nonlocal entered
            number, entered = entered, entered + 1
            if number < len(self.anatomy) - 1:
                hidden = first_tensor((args, kwargs))
            else:
                torch.set_grad_enabled(True)
                self.tap.open = self.anatomy.pooler is not None
                hidden = states
            return replaced(self.forms[number], _STATES, hidden)

        torch.set_grad_enabled(False)
        norms = self.anatomy.norms if self.anatomy.pooler is not None else ()
        own = {module: module.__dict__.get("forward") for module in (*modules, *norms)}
        for module in modules:
            module.__dict__["forward"] = skipped
        for module in norms:
            module.__dict__["forward"] = lambda hidden: hidden
        try:
            yield
        finally:
            for module, forward in own.items():
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward

    def leaves(self) -> list[Tensor]:
        if not self.probe.gradients:
            return []
        calls = self._pooler_calls() + self._block_calls()
        return [call.probabilities for call in calls] + (
            [call.output for call in calls if call.output is not None] if self.probe.values else []
        )

    def _block_calls(self) -> list[AttentionCall]:
        return [call for layer in self.wanted for call in self.calls[layer]]

    def _pooler_calls(self) -> list[AttentionCall]:
        return self.pooled[:1] if self.anatomy.pooler is not None else []

    def scores(self, gradients: Sequence[Tensor]) -> Float[Tensor, "p l"]:
        calls = self._pooler_calls() + self._block_calls()
        first = gradients[: len(calls)]
        second = list(gradients[len(calls) :]) + [None] * len(calls)
        layers = [
            layer
            for number, call in enumerate(calls)
            for layer in self._layers(call, first[number] if first else None, second[number])
        ]
        poolers = len(layers) - len(self._block_calls())
        shown, real = self._places(layers[0].attention)
        return self.probe.rule(
            CapturedAttention(tuple(layers[poolers:]), tuple(layers[:poolers]), lambda: self.reads, shown, real)
        )

    def _places(self, attention: Float[Tensor, "p h q k"]) -> tuple[Bool[Tensor, "p k"], Bool[Tensor, "p k"]]:
        """Which keys can be shown, and which are real: the same for all targets."""
        if self.places is None:
            shown, real = self.positions(attention.shape[-1])
            self.places = shown.to(attention.device), real.to(attention.device)
        return self.places

    def _layers(
        self, call: AttentionCall, gradient: Tensor | None, output_gradient: Tensor | None
    ) -> list[AttentionLayer]:
        """A call as a layer: as several ones, where the model ran on the outputs of several blocks at once."""
        attention = self._heads(call.probabilities.detach()).float()
        if gradient is not None:
            gradient = self._heads(gradient.float())
            # Of a model's own code no mask is known; what it forbids has probability 0.
            allowed = attention > 0 if call.value is None else call.allowed
            gradient = gradient if allowed is None else gradient * allowed
        if len(attention) > self.count:
            parts = attention.split(self.count)
            slopes = [None] * len(parts) if gradient is None else gradient.split(self.count)
            return [AttentionLayer(part, slope) for part, slope in zip(parts, slopes, strict=True)]
        if not self.probe.values:
            return [AttentionLayer(attention, gradient)]
        query, key, value, output = (
            None if tensor is None else tensor.detach().float()
            for tensor in (call.query, call.key, call.value, call.output)
        )
        slope = None if output_gradient is None else output_gradient.float()
        return [AttentionLayer(attention, gradient, query, key, value, output, slope, _projection(call))]

    def _heads(self, tensor: Tensor) -> Float[Tensor, "p h q k"]:
        """Rows and heads apart, where a model joins them."""
        return tensor if tensor.ndim == 4 else tensor.reshape(self.count, -1, *tensor.shape[-2:])

    @cached_property
    def reads(self) -> Float[Tensor, "p l"]:
        """With which weights the output reads the positions after the last block."""
        assert self.outputs is not None
        # Not all alike, for probabilities sum to a constant.
        weights = torch.linspace(1, 2, self.outputs.shape[1], device=self.outputs.device)
        total = (self.outputs * weights).sum()
        pooled = self._pooler_calls()
        leaf = pooled[0].probabilities if pooled else self.last
        assert leaf is not None
        (slope,) = torch.autograd.grad(total, leaf, retain_graph=True)
        if pooled:
            read = (self._heads(slope) != 0).any(3).any(1).float()
            read = read / read.sum(-1, keepdim=True).clamp(min=1)
            found = torch.einsum("pq,pqk->pk", read, self._heads(leaf.detach()).float().mean(1))
            assert self.last is not None
            # Tokens before the patches may be kept from the pooler.
            return functional.pad(found, (self.last.shape[1 - self.anatomy.batch] - found.shape[1], 0))
        read = (slope.movedim(self.anatomy.batch, 0) != 0).any(-1).float()
        if not read.any(1).all():
            raise UnsupportedError(
                "The score does not change with what any position holds after the last block, as behind an activation "
                "that is saturated: which positions the output reads cannot be told."
            )
        return read / read.sum(-1, keepdim=True).clamp(min=1)


def _projection(call: AttentionCall) -> Callable[[Tensor], Tensor] | None:
    if call.projection is None:
        return None
    weight, bias = (None if part is None else part.detach().float() for part in call.projection)
    assert weight is not None
    return lambda joined: functional.linear(joined, weight, bias)
