"""The size of a model's patches, found by structure."""

from collections.abc import Sequence
from typing import Any

from torch import nn

# ConvNeXt calls the stride of its stem a patch size and MobileViT that of its blocks; units of theirs are no patches.
_CONVOLUTIONAL = ("convnext", "convnextv2", "focalnet", "mobilevit", "mobilevitv2", "poolformer", "van")
# LeViT names depths, but its patch size is that of the last stage already.
_UNMERGED = ("levit",)


def patch_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a model works on, None where it has none.

    Models that merge patches on the way (Swin) are read at their last stage, which is what their output rests on.
    """
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "model_type", None) in _CONVOLUTIONAL:
        return None
    # transformers in the config, torchvision on the model, timm on its embedding.
    embedding = getattr(model, "patch_embed", None)
    holder = next((one for one in (config, model, embedding) if _has_size(one)), None)
    stages = getattr(model, "feature_info", None)
    reduction = int(stages[-1].get("reduction", 0)) if isinstance(stages, list) and stages else 0
    if holder is not None and holder is embedding and reduction:
        # The embedding's own size may be that of patches which overlap, or counted in features of a network before it.
        return reduction, reduction
    found = getattr(holder, "patch_size", None)
    # Patches that overlap lie a stride apart.
    found = getattr(config, "patch_stride", None) or found
    if found is None or isinstance(found, nn.Module):
        return None
    height, width = (int(s) for s in found) if isinstance(found, Sequence) else (int(found),) * 2
    merged = 2 ** (_stages(config, model) - 1)
    return height * merged, width * merged


def _has_size(holder: Any) -> bool:
    return getattr(holder, "patch_size", None) is not None


def _stages(config: Any, model: Any) -> int:
    """How often patches are merged, plus one."""
    if getattr(config, "model_type", None) in _UNMERGED:
        return 1
    depths = getattr(config, "depths", None)
    if isinstance(depths, Sequence):
        return len(depths)
    layers = getattr(model, "layers", None)
    return len(layers) if isinstance(layers, nn.Sequential) and getattr(model, "patch_embed", None) is not None else 1
