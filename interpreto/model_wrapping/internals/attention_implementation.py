"""Replacing attention kernels that do not expose probabilities, for the duration of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedConfig

_FUSED_KERNELS = ("flash", "flex", "paged")
_ATTRIBUTE = "_attn_implementation_internal"
"""The attribute of a config with its kernel; setting the public property would also change the configs of submodels."""


@contextmanager
def use_recordable_attention(module: nn.Module) -> Iterator[None]:
    """Let models that were loaded with flash or flex attention use PyTorch's own; they are restored afterwards."""
    owners = [(part, config) for part in module.modules() if (config := _config(part)) is not None]
    # Modules share configs; each is changed once.
    configs = {id(config): config for _, config in owners}
    to_change = [config for config in configs.values() if any(kind in _kernel(config) for kind in _FUSED_KERNELS)]
    kernels = [_kernel(config) for config in to_change]
    # Some models add a bias to attention scores that PyTorch's fused attention does not support.
    without_sdpa = {id(config) for part, config in owners if getattr(part, "_supports_sdpa", True) is False}
    try:
        for config in to_change:
            setattr(config, _ATTRIBUTE, "eager" if id(config) in without_sdpa else "sdpa")
        yield
    finally:
        for config, kernel in zip(to_change, kernels, strict=True):
            setattr(config, _ATTRIBUTE, kernel)


def _config(part: nn.Module) -> PreTrainedConfig | None:
    config = getattr(part, "config", None)
    return config if isinstance(config, PreTrainedConfig) else None


def _kernel(config: PreTrainedConfig) -> str:
    return str(getattr(config, _ATTRIBUTE, None))
