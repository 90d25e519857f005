"""Models with an image tower and a text tower that meet in one space: transformers and OpenCLIP."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError
from interpreto.model_wrapping.dual_encoders.open_clip import OpenClipTokenizer, text_part
from interpreto.model_wrapping.execution.forward_arguments import ForwardArguments
from interpreto.model_wrapping.inputs import naflex
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor
from interpreto.model_wrapping.inputs.image_size import Resolution, Size, resolution_of
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.inputs.pixel_shape import PixelShape
from interpreto.model_wrapping.inputs.text import check_characters
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.language.token_embeddings import EMBEDDINGS
from interpreto.model_wrapping.runtime import device_of, dtype_of
from interpreto.typing import Tokenizer

_ALWAYS_FULL = ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model")
"""Models that were trained on texts filled up to their full length, and read the last position."""
_BLANK = "a photo of a"
_PATCHED = ("siglip2",)
"""Models that want their images cut into patches, in the form of each picture (NaFlex)."""


class DualEncoder(ABC):
    """A model with two towers.

    Attributes:
        model: The whole model.
        text: Its text tower and tokenizer; None where no processor was given.
        images: What prepares its images.
        full: Up to which length texts are filled up; None where they may have any.
        blank: A prompt that names nothing, for models whose pooler looks at some places whatever it is asked (SigLIP).
        bare: Whether LeGrad's authors score what blocks say at its own length instead of at length 1 (CoCa).
    """

    model: Any
    text: TextModel | None = None
    images: Any
    full: int | None = None
    blank: str = ""
    bare: bool = False

    @property
    @abstractmethod
    def scale(self) -> float:
        """What a cosine is multiplied with."""

    @property
    def bias(self) -> float:
        """What is added to it."""
        bias = getattr(self.model, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    @abstractmethod
    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: Any) -> Float[Tensor, "p d"]:
        """Images in the common space, of any length."""

    @abstractmethod
    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        """Texts in the common space, of any length."""

    @property
    @abstractmethod
    def image_forward(self) -> Any:
        """What is called with images."""

    def pictures(self, size: Size | None) -> tuple[ImagePreprocessor, Resolution]:
        """What makes samples of images, and what running them takes, at a size or at the model's own."""
        tower = self.image_tower
        patch = patch_size(tower)
        shape = PixelShape.of(tower, self.image_forward, size, patch)
        return ImagePreprocessor(self.images, patch, size, shape), resolution_of(tower, self.image_forward, size, patch)

    def filled(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> tuple[Tensor, Tensor]:
        """Texts at the length that the model was trained with."""
        missing = 0 if self.full is None else self.full - ids.shape[1]
        if missing <= 0:
            return ids, mask
        return nn.functional.pad(ids, (0, missing), value=self.pad), nn.functional.pad(mask, (0, missing))

    @property
    @abstractmethod
    def image_tower(self) -> Any:
        """The part that reads images."""

    @property
    def require_text(self) -> TextModel:
        """The text tower and its tokenizer.

        Raises:
            ModelError: if there is no tokenizer.
        """
        if self.text is None:
            raise ModelError(
                "Prompts need the model's tokenizer, those that LeGrad adds for a model with a pooler too: "
                "Method(model, processor). Without one images are tensors that the model reads, and targets are "
                "embeddings of the space that both towers share."
            )
        return self.text

    @property
    def pad(self) -> int:
        """What texts are filled up with."""
        return int(self.require_text.padding["input_ids"])

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "k d"]:
        """Texts in the common space."""
        rows = [self.tokens(text) for text in texts]
        length = max(map(len, rows))
        device = device_of(self.model)
        ids = torch.tensor([row + [self.pad] * (length - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
        return self.text_features(ids, mask)

    def tokens(self, text: str) -> list[int]:
        """The ids of a text, with what the tokenizer puts around it."""
        check_characters(text)
        return list(tokenized(self.require_text.tokenizer, text, truncation=False, verbose=False)["input_ids"])


@final
class TransformersDualEncoder(DualEncoder):
    """CLIP, SigLIP, ALIGN and their kin in transformers."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.images, tokenizer = parts_of(processor)
        config = getattr(model, "config", None)
        tower = getattr(model, "text_model", None)
        if config is None or tower is None or getattr(model, "get_image_features", None) is None:
            raise ModelError(
                f"{type(model).__name__} has no text tower and image tower of its own whose features are compared."
            )
        self.side = config.vision_config.patch_size if config.model_type in _PATCHED else None
        full = config.model_type in _ALWAYS_FULL
        self.blank = _BLANK if full else ""
        if tokenizer is None:
            return
        plain = TextModel.of(tower, tokenizer, reads_padding=config.model_type in ("clip", "metaclip_2", "altclip"))
        self.text = plain.reading_end(_ends(tower, tokenizer))
        self.full = plain.config.max_position_embeddings if full else None

    @property
    def scale(self) -> float:
        if getattr(self.model, "logit_scale", None) is None:
            return float(1 / self.model.temperature.detach())
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def image_tower(self) -> Any:
        return self.model.vision_model

    @property
    def image_forward(self) -> Any:
        return self.model.get_image_features

    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: Any) -> Float[Tensor, "p d"]:
        if self.side is None:
            return _features(self.model.get_image_features(pixel_values=pixels, **options))
        return _features(self.model.get_image_features(**naflex.patches(pixels, self.side)))

    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        ids, mask = self.filled(ids, mask)
        fields: Mapping[str, Any] = {"input_ids": ids}
        if self.full is None:
            fields = {**fields, "attention_mask": mask}
        return _features(self.model.get_text_features(**fields))


@final
class OpenClipDualEncoder(DualEncoder):
    """Models of OpenCLIP, and of OpenAI's first release, which have `encode_image` and `encode_text`."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.images, tokenizer = parts_of(processor)
        self.bare = getattr(model.visual, "attn_pool", None) is not None
        # CoCa gives features of length 1 unless it is told not to.
        named = "normalize" in inspect.signature(model.encode_image).parameters
        self.plain = {"normalize": False} if named else {}
        # A bias is what a sigmoid loss needs.
        self.blank = "" if getattr(model, "logit_bias", None) is None else _BLANK
        if tokenizer is None:
            return
        part = text_part(model)
        self.full = int(part.context_length)
        # A tokenizer of transformers serves as well.
        adapted: Any = tokenizer if isinstance(tokenizer, Tokenizer) else OpenClipTokenizer(tokenizer, self.full)
        self.text = TextModel(
            model,
            adapted,
            adapted,
            ForwardArguments(frozenset({"input_ids"}), ()),
            ("input_ids",),
            {"input_ids": adapted.pad_token_id, "attention_mask": 0, EMBEDDINGS: 0.0},
            self.full,
            False,
            "",
            ends=frozenset(adapted.all_special_ids),
            table=part.embedding,
        )

    @property
    def scale(self) -> float:
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def image_tower(self) -> Any:
        visual = self.model.visual
        return getattr(visual, "trunk", visual)

    @property
    def image_forward(self) -> Any:
        return self.image_tower.forward

    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: Any) -> Float[Tensor, "p d"]:
        return self.model.encode_image(pixels.to(dtype_of(self.model)), **self.plain, **options)

    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        return self.model.encode_text(self.filled(ids, mask)[0])


def dual_encoder_of(model: Any, processor: Any) -> DualEncoder:
    """A model with two towers and what prepares its inputs.

    Raises:
        ModelError: if the model has no two towers, or something that prepares inputs is missing.
    """
    if getattr(model, "encode_image", None) is not None and getattr(model, "encode_text", None) is not None:
        return OpenClipDualEncoder(model, processor)
    return TransformersDualEncoder(model, processor)


def parts_of(processor: Any) -> tuple[Any, Any]:
    """What prepares images, and what prepares texts; nothing where both are given as the model reads them.

    Raises:
        ModelError: if it is not one of each.
    """
    if processor is None:
        return None, None
    if isinstance(processor, tuple) and len(processor) == 2:
        return processor
    images, tokenizer = getattr(processor, "image_processor", None), getattr(processor, "tokenizer", None)
    if images is None or tokenizer is None:
        raise ModelError(
            "A model that compares images with texts needs what prepares both: its processor, or a tuple (transform, "
            f"tokenizer) as OpenCLIP gives them. Got {type(processor).__name__}."
        )
    return images, tokenizer


def _features(output: Any) -> Float[Tensor, "p d"]:
    return output if isinstance(output, Tensor) else output.pooler_output


def _ends(tower: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens by which a tower finds the end of a text."""
    if getattr(tower, "eos_token_id", None) is None:
        return frozenset()
    return frozenset({tokenizer.eos_token_id, tokenizer.bos_token_id} - {None})
