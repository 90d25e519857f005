"""The text side of models that compare images with texts: targets are images."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import InputError, TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.dual_encoders import similarity_targets as similarity
from interpreto.model_wrapping.dual_encoders.base import dual_encoder_of
from interpreto.model_wrapping.dual_encoders.encoded_targets import TOGETHER, EncodedTargets, settle
from interpreto.model_wrapping.dual_encoders.similarity_targets import Embedding
from interpreto.model_wrapping.execution.autograd import Autograd
from interpreto.model_wrapping.execution.model_pool import ModelPool
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs import text as texts
from interpreto.model_wrapping.inputs.image_preprocessor import PIXELS
from interpreto.model_wrapping.inputs.image_sources import is_source
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.language.token_embeddings import EMBEDDINGS, replaced
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of, provenance
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.tasks.detection import unwrap_model, unwrapped
from interpreto.model_wrapping.wrapper import InferenceWrapper

_WANTED = "images that the text is compared with, or their embeddings; a tuple is several"


@final
class TextSimilarity(InferenceWrapper):
    """The text tower of a model with two, and images that its texts are compared with.

    Args:
        model: A model of transformers or OpenCLIP with an image and a text tower.
        processor: What prepares both: a joint processor, or `(transform, tokenizer)`.
        runtime: How the model is run.

    Raises:
        ModelError: if the model has no two towers, or the processor does not prepare both.
    """

    task, modality, ragged = "zero-shot-image-classification", "text", True
    no_attention = ""
    may_read_padding = True

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        processor = with_own_tokenizer(processor)
        self.model = unwrap_model(model)
        self.processor, self.runtime = processor, runtime
        self.pool = ModelPool(self.model, self._on, runtime.device)
        self.towers = dual_encoder_of(unwrapped(model), processor)
        self.text = self.towers.require_text
        self.config = getattr(unwrapped(model), "config", None)
        self.no_gradients = self.text.no_gradients
        self.pictures, self.resolution = self.towers.pictures(runtime.size)
        self.autograd = Autograd(self.module, self._outputs)
        self.inside = CaptureEngine(
            self.model, self._outputs, words=partial(texts.words, self.text), ragged=self.towers.full is None
        )
        self.shown = EncodedTargets(self.towers, runtime, self._encoded, _WANTED, id)

    @property
    def module(self) -> nn.Module:
        return self.model

    def is_one(self, inputs: Any) -> bool:
        # There is no pair here that a tuple could be; that it is given is told when it is read.
        return not isinstance(inputs, tuple) and texts.is_one_text(inputs)

    def split(self, inputs: Any) -> Iterator[texts.Raw]:
        return texts.split_texts(inputs)

    def prepare(self, raw: texts.Raw) -> TextSample:
        if isinstance(raw, tuple):
            raise InputError("A model that compares images with texts reads one text at a time, not a pair.")
        return texts.encode(raw, self.text, self.text.padding, self.runtime.truncation)

    def normalize_targets(self, targets: Any, count: int | None = None) -> Any:
        return _pictures(similarity.embeddings(targets))

    def check_target(self, spec: Any, sample: Any = None) -> None:
        for picture in self.shown.named(spec):
            if not isinstance(picture, Embedding | _Shown):
                raise TargetError(f"A target of the type {type(picture).__name__} is no image: give {_WANTED}.")

    def resolve_targets(
        self, sample: TextSample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        return settle(sample, self.shown.targets(spec), capture)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self.autograd.respond(requests) if requests[0].capture is None else self.inside.respond(requests)

    def clear_encoded_targets(self) -> None:
        # Between calls the user may change the weights.
        self.shown.forget()

    def provenance(self) -> dict[str, Any]:
        return provenance(self.model, self.config, self.runtime)

    def _encoded(self, shown: Sequence["_Shown"]) -> Float[Tensor, "k d"]:
        samples = self.pictures.prepare([one.raw for one in shown])
        found = []
        # Pictures of one form run together.
        for _, alike in groupby(samples, key=lambda sample: sample.size):
            every = torch.cat([sample.rows.fields[PIXELS] for sample in alike])
            for pixels in every.to(*placement_of(self.model)).split(TOGETHER):
                with precision(self.model, self.runtime.autocast, pixels.device), self.resolution.applied() as options:
                    found.append(self.towers.image_features(pixels, **options).float().cpu())
        return torch.cat(found)

    def _outputs(self, rows: Rows) -> Float[Tensor, "p d"]:
        fields = dict(rows.to(self.text.device).fields)
        ids, mask = fields["input_ids"], fields["attention_mask"]
        embeddings = fields.get(EMBEDDINGS)
        with ExitStack() as stack:
            stack.enter_context(precision(self.model, self.runtime.autocast, self.text.device))
            if embeddings is not None:
                stack.enter_context(replaced(self.text.embedding, ids, embeddings))
            return self.towers.text_features(ids, mask).float()


class _Shown:
    """An image that texts are compared with."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.name = Path(raw).name if isinstance(raw, str | Path) else "the image"


def _pictures(targets: Any) -> Any:
    """A user's images, each marked as one: four axes are several, for every sample."""
    if isinstance(targets, similarity.Contrast):
        return similarity.Contrast(_pictures(targets.fact), _pictures(targets.foil))
    if isinstance(targets, list | tuple):
        return type(targets)(map(_pictures, targets))
    if isinstance(targets, np.ndarray | Tensor) and targets.ndim == 4:
        return tuple(map(_Shown, targets))
    if is_source(targets) or isinstance(targets, np.ndarray | Tensor | dict):
        return _Shown(targets)
    return targets
