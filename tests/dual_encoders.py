"""Tiny dual encoders of transformers and OpenCLIP with random weights."""

from functools import cache
from typing import Any

import open_clip
import torch
import transformers as hf
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import nn

from interpreto.model_wrapping.dual_encoders.prompt_targets import PromptTargets
from interpreto.model_wrapping.rows import Rows
from interpreto.zoo.shapes_clip import build_tokenizer

PROMPTS = ("a red circle", "a small green star", "blobs")
LENGTH = 24

_tokenizer = cache(build_tokenizer)


def _images(size: int = 32) -> Any:
    return hf.CLIPImageProcessor(size={"height": size, "width": size}, do_center_crop=False)


def _text(**more: Any) -> dict[str, Any]:
    words = _tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**sizes, **ids, "vocab_size": len(words), "max_position_embeddings": LENGTH, "projection_dim": 16, **more}


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 16,
}


def _hf(model: Any, config: Any, **text: Any) -> Any:
    def build() -> tuple[Any, Any]:
        made = model(config(text_config=_text(**text), vision_config=VISION, projection_dim=16))
        return made, (_images(), _tokenizer())

    return build


def _siglip() -> tuple[Any, Any]:
    config = hf.SiglipConfig(text_config=_text(projection_size=32), vision_config=VISION)
    return hf.SiglipModel(config), (_images(), _tokenizer())


def _siglip2() -> tuple[Any, Any]:
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    config = hf.Siglip2Config(text_config=_text(projection_size=32), vision_config={**vision, "num_patches": 16})
    return hf.Siglip2Model(config), (hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16), _tokenizer())


def _open(model: Any, *parts: Any, length: int = 16, size: int = 32, **more: Any) -> Any:
    def build() -> tuple[Any, Any]:
        transform = open_clip.image_transform(size, is_train=False)
        return model(16, *parts, **more), (transform, open_clip.SimpleTokenizer(context_length=length))

    return build


def _words(length: int = 16, **more: Any) -> Any:
    return CLIPTextCfg(context_length=length, vocab_size=49408, width=32, heads=4, layers=2, **more)


def _seen(**more: Any) -> Any:
    return CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=8, image_size=32, **more)


def _open_siglip() -> tuple[Any, Any]:
    import timm

    model = CustomTextCLIP(
        16, _seen(), _words(no_causal_mask=True, proj_bias=True, pool_type="last"), init_logit_bias=-10.0
    )
    # OpenCLIP builds timm towers by name; replace it by a small one of the same class.
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 4}
    trunk = timm.models.VisionTransformer(**sizes, global_pool="map", class_token=False, num_classes=0)
    model.visual = Trunk(trunk)
    return model, (open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=16))


class Trunk(nn.Module):
    """A timm tower as a submodule of OpenCLIP."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.trunk(pixels)


DUAL_ENCODERS = {
    "clip": _hf(hf.CLIPModel, hf.CLIPConfig),
    "metaclip2": _hf(hf.MetaClip2Model, hf.MetaClip2Config),
    "clipseg": _hf(hf.CLIPSegModel, hf.CLIPSegConfig),
    "chinese-clip": _hf(hf.ChineseCLIPModel, hf.ChineseCLIPConfig, max_position_embeddings=32),
    "siglip": _siglip,
    "siglip2": _siglip2,
    "open-clip": _open(CLIP, _seen(), _words()),
    "open-coca": _open(
        CoCa,
        MultimodalCfg(context_length=15, vocab_size=49408, width=32, heads=4, layers=1),
        _words(15, embed_cls=True, output_tokens=True),
        _seen(attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4, output_tokens=True),
        length=15,
    ),
    "open-siglip": _open_siglip,
}


@cache
def dual_encoder_model(name: str) -> tuple[Any, Any]:
    """A model in evaluation mode and `(image processor, tokenizer)`."""
    torch.manual_seed(0)
    model, processor = DUAL_ENCODERS[name]()
    for parameter in model.parameters():
        # Some parameters are initialized to zero, which would make all attributions zero.
        if not parameter.any() and parameter.ndim >= 2:
            nn.init.normal_(parameter)
    return model.eval(), processor


def encoded(dual, prompts):
    """Features of prompts, computed by the text tower."""
    rows = Rows.join(PromptTargets(dual).rows(prompts))
    return dual.text_features(rows.fields["input_ids"], rows.fields["attention_mask"])
