"""Models that compare images with texts: either side is explained, the other one is the target."""

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
from interpreto.model_wrapping.inputs.image_preprocessor import ImageReader
from interpreto.model_wrapping.inputs.image_size import Resolution
from interpreto.model_wrapping.inputs.text import TextReader
from interpreto.model_wrapping.inputs.text_encoding import word_tokens
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.language.token_embeddings import replaced
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, device_of, placement_of, unwrap_model, unwrapped
from interpreto.model_wrapping.sample import EMBEDDINGS, PIXELS
from interpreto.model_wrapping.wrapper import Build, InferenceWrapper

_TASK = "zero-shot-image-classification"


def image_with_prompts(model: nn.Module, processor: Any, runtime: Runtime) -> InferenceWrapper:
    """Wrap a model with an image and a text tower to explain images, whose targets are prompts.

    Args:
        model: A model of transformers or OpenCLIP.
        processor: Prepares both sides: a joint processor, or `(transform, tokenizer)`; None for images that are already
            what the model reads, and targets that are embeddings.
        runtime: How the model is run.

    Raises:
        ModelError: if the model does not have two towers, or the processor does not prepare both sides.
    """
    processor = with_own_tokenizer(processor)
    dual, module = dual_encoder_of(unwrapped(model), processor), unwrap_model(model)
    preprocessor, resolution = dual.image_preprocessor(runtime.size)
    forward = _Forward(module, dual, runtime, resolution)
    capture = CaptureEngine(module, forward, PIXELS)
    engine = TorchEngine(module, forward, capture, dual.config, runtime, part_of=_tower_of)
    reader = ImageReader(preprocessor)
    return _wrapped(reader, PromptTargets(dual), engine, dual, runtime, processor, image_with_prompts)


def text_with_images(model: nn.Module, processor: Any, runtime: Runtime) -> InferenceWrapper:
    """Wrap a model with an image and a text tower to explain texts, whose targets are images.

    Args:
        model: A model of transformers or OpenCLIP.
        processor: Prepares both sides: a joint processor, or `(transform, tokenizer)`.
        runtime: How the model is run.

    Raises:
        ModelError: if the model does not have two towers, or the processor does not prepare both sides.
    """
    processor = with_own_tokenizer(processor)
    dual, module = dual_encoder_of(unwrapped(model), processor), unwrap_model(model)
    text = dual.require_text
    preprocessor, resolution = dual.image_preprocessor(runtime.size)
    forward = _Forward(module, dual, runtime, resolution)
    engine = TorchEngine(
        module,
        forward,
        CaptureEngine(module, forward, words=partial(word_tokens, text), ragged=dual.full_length is None),
        dual.config,
        runtime,
        part_of=_tower_of,
        gradient_obstacle=text.gradient_obstacle,
        may_read_padding=True,
    )
    reader = TextReader(text, text.padding, runtime.truncation, takes_pairs=False)
    return _wrapped(reader, ImageTargets(preprocessor), engine, dual, runtime, processor, text_with_images)


def _wrapped(
    reader: InputReader,
    other_side: OtherSide,
    engine: TorchEngine,
    dual: DualEncoder,
    runtime: Runtime,
    processor: Any,
    build: Build,
) -> InferenceWrapper:
    resolver = EncodedTargetResolver(dual, other_side, runtime)
    return InferenceWrapper(
        _TASK,
        reader,
        resolver,
        engine,
        runtime=runtime,
        processor=processor,
        build=build,
        tokens=dual.text,
        dual_encoder=dual,
    )


def _tower_of(rows: Rows) -> str:
    return "image" if PIXELS in rows.names else "text"


@final
@dataclass(frozen=True, eq=False)
class _Forward:
    """From rows of pixels, or rows of tokens, to their features in the space that both towers share."""

    module: nn.Module
    dual: DualEncoder
    runtime: Runtime
    resolution: Resolution

    def __call__(self, rows: Rows) -> Float[Tensor, "p d"]:
        return self._of_images(rows) if PIXELS in rows.fields else self._of_texts(rows)

    def _of_images(self, rows: Rows) -> Float[Tensor, "p d"]:
        # A copy: some models change their inputs in place.
        pixels = rows.fields[PIXELS].to(*placement_of(self.module), copy=True)
        with precision(self.module, self.runtime.autocast, pixels.device), self.resolution.applied() as options:
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
