"""Dual encoders of transformers and OpenCLIP: an image tower and a text tower with a shared embedding space."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError
from interpreto.model_wrapping.dual_encoders.open_clip import OpenClipTokenizer, find_text_tower
from interpreto.model_wrapping.execution.forward_arguments import ForwardArguments
from interpreto.model_wrapping.inputs import naflex
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor
from interpreto.model_wrapping.inputs.image_size import Resolution, resolution_of
from interpreto.model_wrapping.inputs.patch_size import patch_size
from interpreto.model_wrapping.inputs.pixel_shape import PixelShape
from interpreto.model_wrapping.inputs.text_checks import check_characters
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.runtime import dtype_of
from interpreto.model_wrapping.sample import EMBEDDINGS
from interpreto.typing import Size, Tokenizer

_PADDED_TO_FULL_LENGTH = ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model")
"""Model types that were trained on texts padded to full length, and read the last position."""
_NAFLEX = ("siglip2",)
"""Model types that read images as patches, in their own aspect ratio (NaFlex)."""


class DualEncoder(ABC):
    """A model with an image tower and a text tower.

    Attributes:
        model: The model.
        text: Its text tower and tokenizer; None if no processor was passed.
        images: The image processor or transform.
        full_length: The length to which texts are padded; None if they may have any length.
    """

    model: Any
    text: TextModel | None = None
    images: Any
    full_length: int | None = None

    @property
    def config(self) -> Any:
        """The model's config; None if it has none."""
        return getattr(self.model, "config", None)

    @property
    def has_sigmoid_loss(self) -> bool:
        """Whether similarities have a bias, as in models trained with a sigmoid loss (SigLIP)."""
        return getattr(self.model, "logit_bias", None) is not None

    @property
    def has_attentional_pooler(self) -> bool:
        """Whether the image tower is one of OpenCLIP that ends in an attentional pooler (CoCa)."""
        return getattr(getattr(self.model, "visual", None), "attn_pool", None) is not None

    @property
    @abstractmethod
    def scale(self) -> float:
        """The factor of the cosine similarity (inverse temperature)."""

    @property
    def bias(self) -> float:
        """The bias that is added to the scaled cosine similarity."""
        bias = getattr(self.model, "logit_bias", None)
        return 0.0 if bias is None else float(bias.detach())

    @abstractmethod
    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: object) -> Float[Tensor, "p d"]:
        """Embeddings of images in the shared space, not normalized."""

    @abstractmethod
    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        """Embeddings of texts in the shared space, not normalized."""

    @property
    @abstractmethod
    def image_forward(self) -> Any:
        """The function that is called with images."""

    def image_preprocessor(self, size: Size | None) -> tuple[ImagePreprocessor, Resolution]:
        """The preprocessor for images of a size, or of the model's own, and the changes to the model that it needs."""
        tower = self.image_tower
        patch = patch_size(tower)
        shape = PixelShape.of(tower, self.image_forward, size, patch)
        return ImagePreprocessor(self.images, patch, size, shape), resolution_of(tower, self.image_forward, size, patch)

    def padded(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> tuple[Tensor, Tensor]:
        """Texts padded to the length with which the model was trained."""
        n_missing = 0 if self.full_length is None else self.full_length - ids.shape[1]
        if n_missing <= 0:
            return ids, mask
        return nn.functional.pad(ids, (0, n_missing), value=self.pad_token), nn.functional.pad(mask, (0, n_missing))

    @property
    @abstractmethod
    def image_tower(self) -> Any:
        """The part of the model that reads images."""

    @property
    def require_text(self) -> TextModel:
        """The text tower and its tokenizer.

        Raises:
            ModelError: if there is no tokenizer.
        """
        if self.text is None:
            raise ModelError(
                "Prompts need the model's tokenizer, including those that LeGrad adds for a model with a pooler: pass "
                "Method(model, processor). Without a processor, images must be preprocessed tensors, and targets must "
                "be embeddings of the space that both towers share."
            )
        return self.text

    @property
    def pad_token(self) -> int:
        """The token with which texts are padded."""
        return int(self.require_text.padding["input_ids"])

    def token_ids(self, text: str) -> list[int]:
        """The token ids of a text, with the special tokens that the tokenizer adds."""
        check_characters(text)
        return list(tokenized(self.require_text.tokenizer, text, truncation=False, verbose=False)["input_ids"])


@final
class TransformersDualEncoder(DualEncoder):
    """CLIP, SigLIP, ALIGN and similar models of transformers."""

    def __init__(self, model: object, processor: object) -> None:
        self.model = model
        self.images, tokenizer = parts_of(processor)
        config = getattr(model, "config", None)
        tower = getattr(model, "text_model", None)
        if config is None or tower is None or getattr(model, "get_image_features", None) is None:
            raise ModelError(
                f"{type(model).__name__} does not have separate text and image towers whose features are compared."
            )
        self.side = config.vision_config.patch_size if config.model_type in _NAFLEX else None
        is_padded = config.model_type in _PADDED_TO_FULL_LENGTH
        if tokenizer is None:
            return
        # CLIP finds the end of a text by a token with which it also pads; AltCLIP, built on XLM-R, counts positions by
        # padding.
        text = TextModel.of(tower, tokenizer, reads_padding=config.model_type in ("clip", "metaclip_2", "altclip"))
        self.text = text.reading_end(_ends(tower, tokenizer))
        self.full_length = text.config.max_position_embeddings if is_padded else None

    @property
    def scale(self) -> float:
        if getattr(self.model, "logit_scale", None) is None:
            # ALIGN has a temperature instead of a scale.
            return float(1 / self.model.temperature.detach())
        # The parameter is the logarithm of the scale; it may be in half precision.
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def image_tower(self) -> Any:
        return self.model.vision_model

    @property
    def image_forward(self) -> Any:
        return self.model.get_image_features

    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: object) -> Float[Tensor, "p d"]:
        if self.side is None:
            return _features(self.model.get_image_features(pixel_values=pixels, **options))
        return _features(self.model.get_image_features(**naflex.patches(pixels, self.side)))

    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        ids, mask = self.padded(ids, mask)
        fields: Mapping[str, Any] = {"input_ids": ids}
        if self.full_length is None:
            # SigLIP was trained without an attention mask: it attends to padding.
            fields = {**fields, "attention_mask": mask}
        return _features(self.model.get_text_features(**fields))


@final
class OpenClipDualEncoder(DualEncoder):
    """Models of OpenCLIP and of OpenAI's original release, which have `encode_image` and `encode_text`."""

    def __init__(self, model: Any, processor: object) -> None:
        self.model = model
        self.images, tokenizer = parts_of(processor)
        # CoCa returns normalized features by default.
        has_normalize = "normalize" in inspect.signature(model.encode_image).parameters
        self.plain = {"normalize": False} if has_normalize else {}
        if tokenizer is None:
            return
        tower = find_text_tower(model)
        self.full_length = int(tower.context_length)
        # A tokenizer of transformers is accepted too.
        adapted: Any = tokenizer if isinstance(tokenizer, Tokenizer) else OpenClipTokenizer(tokenizer, self.full_length)
        self.text = TextModel(
            model,
            adapted,
            adapted,
            ForwardArguments(frozenset({"input_ids"}), ()),
            ("input_ids",),
            {"input_ids": adapted.pad_token_id, "attention_mask": 0, EMBEDDINGS: 0.0},
            self.full_length,
            False,
            "",
            ends=frozenset(adapted.all_special_ids),
            table=tower.embedding,
        )

    @property
    def scale(self) -> float:
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def image_tower(self) -> Any:
        visual = self.model.visual
        # OpenCLIP wraps towers of timm, whose model is the trunk.
        return getattr(visual, "trunk", visual)

    @property
    def image_forward(self) -> Any:
        return self.image_tower.forward

    def image_features(self, pixels: Float[Tensor, "p c H W"], **options: object) -> Float[Tensor, "p d"]:
        # OpenCLIP does not cast images to the precision of the model.
        return self.model.encode_image(pixels.to(dtype_of(self.model)), **self.plain, **options)

    def text_features(self, ids: Int[Tensor, "p l"], mask: Int[Tensor, "p l"]) -> Float[Tensor, "p d"]:
        return self.model.encode_text(self.padded(ids, mask)[0])


def dual_encoder_of(model: object, processor: object) -> DualEncoder:
    """Wrap a dual encoder and its processor.

    Raises:
        ModelError: if the model does not have two towers, or a part of the processor is missing.
    """
    if getattr(model, "encode_image", None) is not None and getattr(model, "encode_text", None) is not None:
        return OpenClipDualEncoder(model, processor)
    return TransformersDualEncoder(model, processor)


def parts_of(processor: object) -> tuple[Any, Any]:
    """Split a processor into that for images and the tokenizer; None for both if inputs are preprocessed.

    Raises:
        ModelError: if it does not contain one of each.
    """
    if processor is None:
        return None, None
    if isinstance(processor, tuple) and len(processor) == 2:
        return processor
    images, tokenizer = getattr(processor, "image_processor", None), getattr(processor, "tokenizer", None)
    if images is None or tokenizer is None:
        raise ModelError(
            "A model that compares images with texts needs a processor for both, or a tuple (transform, tokenizer) "
            f"from OpenCLIP. Got {type(processor).__name__}."
        )
    return images, tokenizer


def _features(output: Any) -> Float[Tensor, "p d"]:
    # Since transformers 5 these functions return an output object instead of a tensor.
    return output if isinstance(output, Tensor) else output.pooler_output


def _ends(tower: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens by which a tower finds the end of a text."""
    if getattr(tower, "eos_token_id", None) is None:
        return frozenset()
    return frozenset({tokenizer.eos_token_id, tokenizer.bos_token_id} - {None})
