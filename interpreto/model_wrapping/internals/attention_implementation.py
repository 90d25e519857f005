"""Attention kernels whose inside nobody can see, exchanged for as long as it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedConfig

_CLOSED = ("flash", "flex", "paged")
_NAME = "_attn_implementation_internal"
"""Where a config keeps it; the public name of the same hands it on to the configs of its parts."""


@contextmanager
def use_recordable_attention(module: nn.Module) -> Iterator[None]:
    """Let models that were loaded with flash or flex attention use PyTorch's own; afterwards they are as they were."""
    owners = [(part, config) for part in module.modules() if (config := _config(part)) is not None]
    configs = {id(config): config for _, config in owners}
    closed = [config for config in configs.values() if any(kind in _kernel(config) for kind in _CLOSED)]
    before = [_kernel(config) for config in closed]
    # Some models add to their attention what PyTorch's own cannot.
    plain = {id(config) for part, config in owners if getattr(part, "_supports_sdpa", True) is False}
    try:
        for config in closed:
            setattr(config, _NAME, "eager" if id(config) in plain else "sdpa")
        yield
    finally:
        for config, kernel in zip(closed, before, strict=True):
            setattr(config, _NAME, kernel)


def _config(part: nn.Module) -> PreTrainedConfig | None:
    config = getattr(part, "config", None)
    return config if isinstance(config, PreTrainedConfig) else None


def _kernel(config: PreTrainedConfig) -> str:
    return str(getattr(config, _NAME, None))
