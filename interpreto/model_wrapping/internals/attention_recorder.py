"""Records the attention probabilities of models that use fused or multi-head attention of PyTorch, or a softmax."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interpreto.typing import TorchFunction

_FORBIDDEN = -1e4
"""An additive mask at or below this value forbids attention; older models use -10,000 instead of minus infinity."""

_FUSED = functional.scaled_dot_product_attention
_MULTI_HEAD = functional.multi_head_attention_forward
_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax)
ATTENTION_FUNCTIONS = frozenset({_FUSED, _MULTI_HEAD, *_SOFTMAX})
"""Functions of which some calls are recorded."""


class _Thread(threading.local):
    """The innermost recorder of each thread.

    Recorders nest if a target function runs another model, whose attention must not reach the outer recorder.
    """

    recorder: "AttentionRecorder | None" = None


_THREAD = _Thread()


@dataclass(eq=False)
class AttentionCall:
    """One computation of attention.

    Attributes:
        probabilities: `p h q k` in float32, or `p*h q k` if a model flattens rows and heads. Gradients can be computed
            with respect to them.
        allowed: Which keys a query may attend to, in a shape that broadcasts; None if all of them, or if the model
            applies the mask in its own code.
        query: `p h q d`; None, as key, value and output, if only a softmax of the model's own code was recorded.
        key: `p h k d`, repeated if several query heads share one.
        value: `p h k e`, repeated likewise.
        output: `p h q e`, before the output projection.
        projection: Weight and bias of the output projection, which joins the heads.
    """

    probabilities: Float[Tensor, "..."]
    allowed: Bool[Tensor, "..."] | None = None
    query: Float[Tensor, "*p h q d"] | None = None
    key: Float[Tensor, "*p h k d"] | None = None
    value: Float[Tensor, "*p h k e"] | None = None
    output: Float[Tensor, "*p h q e"] | None = None
    projection: tuple[Tensor, Tensor | None] | None = None


class AttentionRecorder(TorchFunctionMode):
    """Computes attention with explicit probabilities and records every call, while it is active and `recording`.

    Three kinds of calls are recorded: `scaled_dot_product_attention`, whose softmax is computed explicitly; the same
    inside `multi_head_attention_forward`; and, in models with their own attention code, a softmax over the last of
    three or more axes, whose result is taken as the probabilities.

    Args:
        gradients: Whether gradients are needed. They are enabled at the first recorded call, so that a model that runs
            under `no_grad` has a graph from there on only.
        merge: Whether all heads are computed as one, as the reference code of Grad-ECLIP does.

    Attributes:
        recording: Whether calls are recorded; otherwise they run unchanged.
        calls: The calls since the last `drain`.
    """

    def __init__(self, *, gradients: bool = True, merge: bool = False) -> None:
        TorchFunctionMode.__init__(self)
        self.gradients, self.merge = gradients, merge
        self.recording = False
        self.calls: list[AttentionCall] = []

    def __enter__(self) -> "AttentionRecorder":
        self._grad_was_enabled = torch.is_grad_enabled()
        self._outer, _THREAD.recorder = _THREAD.recorder, self
        TorchFunctionMode.__enter__(self)
        return self

    def __exit__(self, *error: object) -> None:
        TorchFunctionMode.__exit__(self, *error)
        _THREAD.recorder = self._outer
        torch.set_grad_enabled(self._grad_was_enabled)

    @staticmethod
    def is_attention(func: Any, args: Any, options: Any) -> bool:
        """Whether a call of a function is recorded."""
        if func not in _SOFTMAX:
            return func is _FUSED or func is _MULTI_HEAD
        scores = args[0] if args else options["input"]
        return _is_over_keys(scores, *args[1:], **{name: value for name, value in options.items() if name != "input"})

    def drain(self) -> list[AttentionCall]:
        """Return the recorded calls, and forget them."""
        calls, self.calls = self.calls, []
        return calls

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        options = kwargs or {}
        if not self.recording or _THREAD.recorder is not self:
            return func(*args, **options)
        if func is _FUSED:
            return self._attention(*args, **options)
        if func is _MULTI_HEAD:
            return self._multi_head(*args, **options)
        if func in _SOFTMAX:
            probabilities = func(*args, **options)
            return self._softmax(
                probabilities, *args[1:], **{name: v for name, v in options.items() if name != "input"}
            )
        if self.calls and self.calls[-1].projection is None:
            # The first linear layer after attention joins the heads; GPT-2 computes it with addmm.
            if func is functional.linear:
                arguments = dict(zip(("input", "weight", "bias"), args, strict=False)) | options
                self.calls[-1].projection = (arguments["weight"], arguments.get("bias"))
            elif func is torch.addmm:
                self.calls[-1].projection = (args[2].T, args[0])
        return func(*args, **options)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """softmax(scale q k^T + mask) v with explicit probabilities and without dropout.

        Queries without any allowed key return 0.
        """
        if enable_gqa:
            # Grouped-query attention: several query heads share one key and one value.
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        heads = query.shape[-3]
        if self.merge:
            query, key, value = (_joined(part) for part in (query, key, value))
            scale = None
        # In float32: half precision would round small probabilities and their gradients.
        with torch.autocast(query.device.type, enabled=False):
            allowed, bias = _mask(attn_mask, is_causal, query.shape[-2], key.shape[-2], query.device)
            if self.gradients and not torch.is_grad_enabled():
                # No layer before the first recorded one needs a graph; all layers after it do.
                query, key, value = query.detach(), key.detach(), value.detach()
                torch.set_grad_enabled(True)
            factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
            scores = query.float() @ key.float().mT * factor
            scores = scores if bias is None else scores + bias.float()
            if allowed is None:
                probabilities = scores.softmax(-1)
            else:
                # The softmax of a query without any allowed key is NaN, so its keys are not masked before it but set to
                # 0 after it, as in PyTorch's fused kernels.
                has_allowed = allowed.any(-1, keepdim=True)
                probabilities = scores.masked_fill(~allowed & has_allowed, -torch.inf).softmax(-1) * has_allowed
            probabilities = self._requiring_grad(probabilities)
            output = probabilities.to(value.dtype) @ value
        self.calls.append(AttentionCall(probabilities, allowed, query, key, value, output))
        return _split(output, heads) if self.merge else output

    def _multi_head(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """PyTorch's own multi-head attention, with explicit probabilities.

        Function modes are off inside of it, so its call of fused attention cannot be intercepted: the function is
        copied with another fused attention.
        """
        names = _MULTI_HEAD.__code__.co_varnames[: _MULTI_HEAD.__code__.co_argcount]
        arguments = {**dict(zip(names, args, strict=False)), **options}
        needs_weights = arguments.get("need_weights", True)
        # With need_weights=True PyTorch does not use fused attention.
        output, _ = _multi_head_with(self._attention)(**{**arguments, "need_weights": False})
        call = self.calls[-1]
        call.projection = (arguments["out_proj_weight"], arguments["out_proj_bias"])
        if not needs_weights:
            return output, None
        weights = call.probabilities.mean(1) if arguments.get("average_attn_weights", True) else call.probabilities
        return output, weights.to(output.dtype) if arguments["query"].ndim == 3 else weights[0].to(output.dtype)

    def _softmax(self, probabilities: Tensor, *args: object, **options: object) -> Tensor:
        """Record a softmax of a model's own attention code, which is over the last of three or more axes."""
        if not _is_over_keys(probabilities, *args, **options):
            return probabilities
        if self.gradients and not torch.is_grad_enabled():
            torch.set_grad_enabled(True)
        probabilities = self._requiring_grad(probabilities)
        self.calls.append(AttentionCall(probabilities))
        return probabilities

    def _requiring_grad(self, probabilities: Tensor) -> Tensor:
        """The probabilities, as a tensor with respect to which gradients can be computed."""
        if not self.gradients or probabilities.requires_grad:
            return probabilities
        return probabilities.detach().requires_grad_()


def _is_over_keys(scores: Tensor, *args: object, **options: object) -> bool:
    """Whether a softmax is over the last of three or more axes."""
    axis = args[0] if args else options.get("dim")
    return scores.ndim >= 3 and axis in (-1, scores.ndim - 1)


def _mask(
    mask: Tensor | None, causal: bool, queries: int, keys: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Which keys are allowed, and what is added to the scores."""
    if causal:
        # Aligned to the upper left corner, as PyTorch defines is_causal.
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(), None
    if mask is None:
        return None, None
    if mask.dtype == torch.bool:
        return mask, None
    allowed = mask > _FORBIDDEN
    # A mask may contain a bias for allowed keys; forbidden ones are set to minus infinity through `allowed`, and minus
    # infinity itself would give NaN where no key is allowed.
    return (None, mask) if allowed.all() else (allowed, mask.clamp(min=_FORBIDDEN))


def _joined(heads: Float[Tensor, "p h l d"]) -> Float[Tensor, "p 1 l hd"]:
    return heads.transpose(1, 2).flatten(2)[:, None]


def _split(joined: Float[Tensor, "p 1 l hd"], heads: int) -> Float[Tensor, "p h l d"]:
    return joined[:, 0].unflatten(-1, (heads, -1)).transpose(1, 2)


def _multi_head_with(attention: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """PyTorch's multi-head attention with another fused attention: its code object with other globals.

    Patching the module instead would affect other threads.
    """
    # Dispatch to function modes has already happened for these arguments.
    overrides = {"scaled_dot_product_attention": attention, "has_torch_function": lambda _: False}
    new_globals = {**vars(functional), **overrides}
    return FunctionType(_MULTI_HEAD.__code__, new_globals, argdefs=_MULTI_HEAD.__defaults__)
