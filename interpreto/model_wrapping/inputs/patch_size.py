"""The patch size of a model, from its config and structure."""

from collections.abc import Sequence

from torch import nn

from interpreto.type_guards import as_pair

# ConvNeXt calls the stride of its stem a patch size, and MobileViT that of its blocks; these are not patches of the
# image.
_CONVOLUTIONAL = ("convnext", "convnextv2", "focalnet", "mobilevit", "mobilevitv2", "poolformer", "van")
# LeViT has `depths`, but its patch size is already that of the last stage.
_UNMERGED = ("levit",)


def patch_size(model: object) -> tuple[int, int] | None:
    """Height and width of the patches of a model in pixels; None if it has no patches.

    Models that merge patches between stages (Swin) have the patch size of their last stage, from which the output is
    computed.
    """
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "model_type", None) in _CONVOLUTIONAL:
        return None
    # transformers has it in the config, torchvision on the model, timm on the patch embedding.
    embedding = getattr(model, "patch_embed", None)
    holder = next((part for part in (config, model, embedding) if _has_size(part)), None)
    stages = getattr(model, "feature_info", None)
    reduction = int(stages[-1].get("reduction", 0)) if isinstance(stages, list) and stages else 0
    if holder is not None and holder is embedding and reduction:
        # Patches of the embedding may overlap, or may be counted in features of a convolutional stem; the reduction of
        # the last stage is in pixels.
        return reduction, reduction
    size = getattr(holder, "patch_size", None)
    # Overlapping patches are one stride apart.
    size = getattr(config, "patch_stride", None) or size
    if size is None or isinstance(size, nn.Module):
        return None
    height, width = map(int, as_pair(size))
    # Every stage after the first merges 2 x 2 patches.
    merge_factor = 2 ** (_stages(config, model) - 1)
    return height * merge_factor, width * merge_factor


def _has_size(holder: object) -> bool:
    return getattr(holder, "patch_size", None) is not None


def _stages(config: object, model: object) -> int:
    """The number of stages between which patches are merged."""
    if getattr(config, "model_type", None) in _UNMERGED:
        return 1
    depths = getattr(config, "depths", None)
    if isinstance(depths, Sequence):
        return len(depths)
    layers = getattr(model, "layers", None)
    return len(layers) if isinstance(layers, nn.Sequential) and getattr(model, "patch_embed", None) is not None else 1
