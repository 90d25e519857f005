"""The tap: attention probabilities of any model, whatever kernel it was loaded with."""

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

_FORBIDDEN = -1e4
"""From here downwards an additive mask forbids; models of old write -10,000 where others write minus infinity."""

_FUSED = functional.scaled_dot_product_attention
_MULTI_HEAD = functional.multi_head_attention_forward
_SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax)


class _Thread(threading.local):
    """The innermost tap of each thread: what a target function runs inside of a tapped run is not the outer one's."""

    tap: "AttentionRecorder | None" = None


_THREAD = _Thread()


@dataclass(eq=False)
class AttentionCall:
    """One attention of one layer.

    Attributes:
        probabilities: `p h q k` in float32, or `p*h q k` where a model joins rows and heads. Gradients can be taken
            for them.
        allowed: Which keys a query may look at, in a shape that broadcasts; None where all are, or where the model's
            own code did the masking.
        query: `p h q d`; None, like all that follows, where the model has attention code of its own.
        key: `p h k d`, repeated where several heads of queries share one.
        value: `p h k e`, likewise.
        output: `p h q e`, before the projection that joins the heads.
        projection: Weight and bias of that projection.
    """

    probabilities: Float[Tensor, "..."]
    allowed: Bool[Tensor, "..."] | None = None
    query: Float[Tensor, "*p h q d"] | None = None
    key: Float[Tensor, "*p h k d"] | None = None
    value: Float[Tensor, "*p h k e"] | None = None
    output: Float[Tensor, "*p h q e"] | None = None
    projection: tuple[Tensor, Tensor | None] | None = None


class AttentionRecorder(TorchFunctionMode):
    """While it is on and open, attention is computed in the open, and every call is kept.

    Three things are answered: `scaled_dot_product_attention`, with the softmax written out; the same inside
    `multi_head_attention_forward`; and, in models with attention code of their own, a softmax over the last of three
    or more axes, whose result is taken as the probabilities.

    Args:
        gradients: Whether gradients are wanted. They begin at the first call that is taken: whoever runs the model
            under `no_grad` gets a graph that holds nothing below it.
        merge: Whether all heads are computed as one, as the released code of Grad-ECLIP does.

    Attributes:
        open: Whether calls are taken now; everything else runs as it is.
        calls: What was taken since the last `drain`.
    """

    def __init__(self, *, gradients: bool = True, merge: bool = False) -> None:
        TorchFunctionMode.__init__(self)
        self.gradients, self.merge = gradients, merge
        self.open = False
        self.calls: list[AttentionCall] = []

    def __enter__(self) -> "AttentionRecorder":
        self._graphs = torch.is_grad_enabled()
        self._outer, _THREAD.tap = _THREAD.tap, self
        TorchFunctionMode.__enter__(self)
        return self

    def __exit__(self, *error: Any) -> None:
        TorchFunctionMode.__exit__(self, *error)
        _THREAD.tap = self._outer
        torch.set_grad_enabled(self._graphs)

    @staticmethod
    def respond(func: Any, args: Any, options: Any) -> bool:
        """Whether the recorder handles a call."""
        if func not in _SOFTMAX:
            return func is _FUSED or func is _MULTI_HEAD
        scores = args[0] if args else options["input"]
        return _over_keys(scores, *args[1:], **{name: value for name, value in options.items() if name != "input"})

    def drain(self) -> list[AttentionCall]:
        """The calls that were taken, which are forgotten here."""
        calls, self.calls = self.calls, []
        return calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if not self.open or _THREAD.tap is not self:
            return func(*args, **options)
        if func is _FUSED:
            return self._attention(*args, **options)
        if func is _MULTI_HEAD:
            return self._multi_head(*args, **options)
        if func in _SOFTMAX:
            found = func(*args, **options)
            return self._softmax(found, *args[1:], **{name: v for name, v in options.items() if name != "input"})
        if self.calls and self.calls[-1].projection is None:
            # What heads are joined by is the linear layer that comes after them; GPT-2 writes it as a sum and product.
            if func is functional.linear:
                named = dict(zip(("input", "weight", "bias"), args, strict=False)) | options
                self.calls[-1].projection = (named["weight"], named.get("bias"))
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
        """softmax(q k^T) v with the probabilities in the open; rows that may look at nothing give 0."""
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        heads = query.shape[-3]
        if self.merge:
            query, key, value = (_joined(part) for part in (query, key, value))
            scale = None
        with torch.autocast(query.device.type, enabled=False):
            allowed, bias = _mask(attn_mask, is_causal, query.shape[-2], key.shape[-2], query.device)
            if self.gradients and not torch.is_grad_enabled():
                # Nothing before this call needs a graph; all that follows does.
                query, key, value = query.detach(), key.detach(), value.detach()
                torch.set_grad_enabled(True)
            factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
            scores = query.float() @ key.float().mT * factor
            scores = scores if bias is None else scores + bias.float()
            if allowed is None:
                probabilities = scores.softmax(-1)
            else:
                # A row without a single allowed key has no softmax.
                some = allowed.any(-1, keepdim=True)
                probabilities = scores.masked_fill(~allowed & some, -torch.inf).softmax(-1) * some
            probabilities = self._open(probabilities)
            output = probabilities.to(value.dtype) @ value
        self.calls.append(AttentionCall(probabilities, allowed, query, key, value, output))
        return _split(output, heads) if self.merge else output

    def _multi_head(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        """PyTorch's own multi-head attention, inside which no mode is on: its fused attention becomes the tap's."""
        names = _MULTI_HEAD.__code__.co_varnames[: _MULTI_HEAD.__code__.co_argcount]
        given = {**dict(zip(names, args, strict=False)), **options}
        wanted = given.get("need_weights", True)
        output, _ = _multi_head_with(self._attention)(**{**given, "need_weights": False})
        call = self.calls[-1]
        call.projection = (given["out_proj_weight"], given["out_proj_bias"])
        if not wanted:
            return output, None
        weights = call.probabilities.mean(1) if given.get("average_attn_weights", True) else call.probabilities
        return output, weights.to(output.dtype) if given["query"].ndim == 3 else weights[0].to(output.dtype)

    def _softmax(self, probabilities: Tensor, *args: Any, **options: Any) -> Tensor:
        """A softmax of a model's own attention code; others have fewer axes or run over another one."""
        if not _over_keys(probabilities, *args, **options):
            return probabilities
        if self.gradients and not torch.is_grad_enabled():
            torch.set_grad_enabled(True)
        probabilities = self._open(probabilities)
        self.calls.append(AttentionCall(probabilities))
        return probabilities

    def _open(self, probabilities: Tensor) -> Tensor:
        """The probabilities, such that gradients can be taken for them."""
        if not self.gradients or probabilities.requires_grad:
            return probabilities
        return probabilities.detach().requires_grad_()


def _over_keys(scores: Tensor, *args: Any, **options: Any) -> bool:
    """Whether a softmax runs over the last of three or more axes."""
    axis = args[0] if args else options.get("dim")
    return scores.ndim >= 3 and axis in (-1, scores.ndim - 1)


def _mask(
    mask: Tensor | None, causal: bool, queries: int, keys: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Which keys are allowed, and what is added to the scores."""
    if causal:
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(), None
    if mask is None:
        return None, None
    if mask.dtype == torch.bool:
        return mask, None
    allowed = mask > _FORBIDDEN
    return (None, mask) if allowed.all() else (allowed, mask.clamp(min=_FORBIDDEN))


def _joined(heads: Float[Tensor, "p h l d"]) -> Float[Tensor, "p 1 l hd"]:
    return heads.transpose(1, 2).flatten(2)[:, None]


def _split(joined: Float[Tensor, "p 1 l hd"], heads: int) -> Float[Tensor, "p h l d"]:
    return joined[:, 0].unflatten(-1, (heads, -1)).transpose(1, 2)


def _multi_head_with(attention: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """PyTorch's multi-head attention with another fused attention: its own code, among names of its own.

    No name of the module changes, which other threads read too.
    """
    # Its arguments have passed the modes of this thread already.
    own = {"scaled_dot_product_attention": attention, "has_torch_function": lambda _: False}
    names = {**vars(functional), **own}
    return FunctionType(_MULTI_HEAD.__code__, names, argdefs=_MULTI_HEAD.__defaults__)
