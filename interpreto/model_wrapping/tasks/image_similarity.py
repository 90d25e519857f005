"""The image side of models that compare images with texts: targets are prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import InputError, TargetError
from interpreto.model_wrapping.capture_request import AttentionRequest, CaptureRequest
from interpreto.model_wrapping.dual_encoders import similarity_targets as similarity
from interpreto.model_wrapping.dual_encoders.base import dual_encoder_of
from interpreto.model_wrapping.dual_encoders.encoded_targets import TOGETHER, EncodedTargets, settle
from interpreto.model_wrapping.dual_encoders.similarity_targets import ConcatenatedTargets, Embedding
from interpreto.model_wrapping.execution.autograd import Autograd
from interpreto.model_wrapping.execution.model_pool import ModelPool
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.inputs.image_preprocessor import PIXELS
from interpreto.model_wrapping.inputs.text import check_length
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, device_of, placement_of, provenance
from interpreto.model_wrapping.sample import ImageSample
from interpreto.model_wrapping.tasks.detection import unwrap_model, unwrapped
from interpreto.model_wrapping.wrapper import InferenceWrapper

_WANTED = "prompts such as 'a photo of a cat', or their embeddings; a tuple is several"


@final
class ImageSimilarity(InferenceWrapper):
    """The image tower of a model with two, and prompts that its images are compared with.

    Args:
        model: A model of transformers or OpenCLIP with an image and a text tower.
        processor: What prepares both: a joint processor, or `(transform, tokenizer)`.
        runtime: How the model is run.

    Raises:
        ModelError: if the model has no two towers, or the processor does not prepare both.
    """

    task, modality, ragged, mean_readout = "zero-shot-image-classification", "image", False, True
    no_gradients = no_attention = ""

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        processor = with_own_tokenizer(processor)
        self.model = unwrap_model(model)
        self.processor, self.runtime = processor, runtime
        self.pool = ModelPool(self.model, self._on, runtime.device)
        self.towers = dual_encoder_of(unwrapped(model), processor)
        self.config = getattr(unwrapped(model), "config", None)
        self.pictures, self.resolution = self.towers.pictures(runtime.size)
        self.autograd = Autograd(self.module, self._outputs)
        self.inside = CaptureEngine(self.model, self._outputs, PIXELS)
        self.prompts = EncodedTargets(self.towers, runtime, self._encoded, _WANTED)

    @property
    def empty_prompt(self) -> str:
        return self.towers.blank

    @property
    def module(self) -> nn.Module:
        return self.model

    def is_one(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare(self, raw: Any) -> ImageSample:
        return self.prepare_all([raw])[0]

    def prepare_all(self, raws: Sequence[Any]) -> list[ImageSample]:
        return self.pictures.prepare(raws)

    def normalize_targets(self, targets: Any, count: int | None = None) -> Any:
        return similarity.embeddings(targets)

    def check_target(self, spec: Any, sample: Any = None) -> None:
        for prompt in self.prompts.named(spec):
            if isinstance(prompt, Embedding):
                continue
            if not isinstance(prompt, str):
                said = type(prompt).__name__ if "0x" in repr(prompt) else repr(prompt)
                raise TargetError(
                    f"{said} is no prompt: give {_WANTED}. Images are targets where a text is explained: "
                    "modality='text'."
                )
            if not prompt.strip():
                raise TargetError("A prompt is empty: there is nothing to compare the image with.")
            try:
                check_length(len(self.towers.tokens(prompt)), self.towers.require_text.limit, "use a shorter prompt")
            except InputError as error:
                raise TargetError(f"The prompt {_cut(prompt)!r} is too long. {error}") from None

    def resolve_targets(
        self, sample: ImageSample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        targets = self.prompts.targets(spec)
        if not isinstance(capture, AttentionRequest) or not capture.per_block_objective:
            return settle(sample, targets, capture)
        probed = replace(targets, bare=self.towers.bare)
        if not capture.empty_prompt:
            return settle(sample, targets, capture, probed)
        # What is corrected by is a logit always: a probability among one prompt is constant.
        blank = replace(
            self.prompts.targets(capture.empty_prompt), similarity=replace(targets.similarity, explained=_as_it_is)
        )
        return settle(sample, targets, capture, ConcatenatedTargets(probed, blank))

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self.autograd.respond(requests) if requests[0].capture is None else self.inside.respond(requests)

    def clear_encoded_targets(self) -> None:
        # Between calls the user may change the weights.
        self.prompts.forget()

    def notes(self) -> dict[str, Any]:
        return self.inside.notes()

    def provenance(self) -> dict[str, Any]:
        return provenance(self.model, self.config, self.runtime)

    def _encoded(self, prompts: Sequence[str]) -> Float[Tensor, "k d"]:
        with precision(self.model, self.runtime.autocast, device_of(self.model)):
            parts = [prompts[start : start + TOGETHER] for start in range(0, len(prompts), TOGETHER)]
            return torch.cat([self.towers.encode(part).float().cpu() for part in parts])

    def _outputs(self, rows: Rows) -> Float[Tensor, "p d"]:
        # A copy: some models change their inputs in place.
        pixels = rows.fields[PIXELS].to(*placement_of(self.model), copy=True)
        with precision(self.model, self.runtime.autocast, pixels.device), self.resolution.applied() as options:
            return self.towers.image_features(pixels, **options).float()


def _as_it_is(logits: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    return logits


def _cut(prompt: str) -> str:
    return prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
