"""Models that compare images with texts: one side is explained, the other side is the target."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.model_wrapping.dual_encoders.base import DualEncoder, dual_encoder_of
from interpreto.model_wrapping.dual_encoders.encoded_targets import EncodedTargetResolver, OtherSide
from interpreto.model_wrapping.dual_encoders.image_targets import ImageTargets
from interpreto.model_wrapping.dual_encoders.prompt_targets import PromptTargets
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.execution.torch_engine import TorchEngine
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor, ImageReader
from interpreto.model_wrapping.inputs.image_size import Resolution
from interpreto.model_wrapping.inputs.text import TextReader
from interpreto.model_wrapping.inputs.text_encoding import word_tokens
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.language.token_embeddings import replaced
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, device_of, unwrap_model, unwrap_peft
from interpreto.model_wrapping.sample import EMBEDDINGS, PIXELS
from interpreto.model_wrapping.tasks.pixel_inputs import pixels_of
from interpreto.model_wrapping.wrapper import WrapperParts

_TASK = "zero-shot-image-classification"


def image_with_prompts(model: nn.Module, processor: object, runtime: Runtime) -> WrapperParts:
    """The parts to explain images of a model with an image and a text tower; the targets are prompts.

    The processor prepares both sides: a joint processor, or `(transform, tokenizer)`; None for images that are
    preprocessed already and targets that are embeddings.
    """
    shared = _DualEncoderParts.of(model, processor, runtime)
    engine = shared.engine(CaptureEngine(shared.module, shared.forward, PIXELS))
    return shared.parts(ImageReader(shared.preprocessor), PromptTargets(shared.dual), engine)


def text_with_images(model: nn.Module, processor: object, runtime: Runtime) -> WrapperParts:
    """The parts to explain texts of a model with an image and a text tower; the targets are images.

    The processor is as for `image_with_prompts`.
    """
    shared = _DualEncoderParts.of(model, processor, runtime)
    text, module = shared.dual.require_text, shared.module
    words, ragged = partial(word_tokens, text), shared.dual.full_length is None
    capture = CaptureEngine(module, shared.forward, words=words, ragged=ragged)
    engine = shared.engine(capture, gradient_obstacle=text.gradient_obstacle, may_read_padding=True)
    reader = TextReader(text, text.padding, runtime.truncation, takes_pairs=False)
    return shared.parts(reader, ImageTargets(shared.preprocessor), engine)


@final
@dataclass(frozen=True, eq=False)
class _DualEncoderParts:
    """The parts that do not depend on which side is explained."""

    module: nn.Module
    dual: DualEncoder
    processor: Any
    runtime: Runtime
    preprocessor: ImagePreprocessor
    forward: "_RowsToFeatures"

    @staticmethod
    def of(model: nn.Module, processor: object, runtime: Runtime) -> "_DualEncoderParts":
        processor = with_own_tokenizer(processor)
        dual, module = dual_encoder_of(unwrap_peft(model), processor), unwrap_model(model)
        preprocessor, resolution = dual.image_preprocessor(runtime.size)
        forward = _RowsToFeatures(module, dual, runtime, resolution)
        return _DualEncoderParts(module, dual, processor, runtime, preprocessor, forward)

    def engine(self, capture: CaptureEngine, **options: Any) -> TorchEngine:
        """The engine of both towers: targets of the other side are rows of the other tower."""
        return TorchEngine(
            self.module, self.forward, capture, self.dual.config, self.runtime, part_of=_tower_of, **options
        )

    def parts(self, reader: InputReader, other_side: OtherSide, engine: TorchEngine) -> WrapperParts:
        """The parts that explain one side."""
        resolver = EncodedTargetResolver(self.dual, other_side, self.runtime)
        return WrapperParts(_TASK, reader, resolver, engine, self.processor, self.dual.text, self.dual, self.runtime)


def _tower_of(rows: Rows) -> str:
    return "image" if PIXELS in rows.names else "text"


@final
@dataclass(frozen=True, eq=False)
class _RowsToFeatures:
    """From rows of pixels, or rows of tokens, to their features in the space that both towers share."""

    module: nn.Module
    dual: DualEncoder
    runtime: Runtime
    resolution: Resolution

    def __call__(self, rows: Rows) -> Float[Tensor, "p d"]:
        return self._of_images(rows) if PIXELS in rows.fields else self._of_texts(rows)

    def _of_images(self, rows: Rows) -> Float[Tensor, "p d"]:
        with pixels_of(rows, self.module, self.runtime, self.resolution) as (pixels, options):
            return self.dual.image_features(pixels, **options).float()

    def _of_texts(self, rows: Rows) -> Float[Tensor, "p d"]:
        device = device_of(self.module)
        fields = dict(rows.to(device).fields)
        ids, mask = fields["input_ids"], fields["attention_mask"]
        embeddings = fields.get(EMBEDDINGS)
        with ExitStack() as stack:
            stack.enter_context(precision(self.module, self.runtime.autocast, device))
            if embeddings is not None:
                stack.enter_context(replaced(self.dual.require_text.embedding, ids, embeddings))
            return self.dual.text_features(ids, mask).float()
