"""Text classifiers of transformers: encoders, and decoders with a classification head."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.autograd import Autograd
from interpreto.model_wrapping.execution.model_pool import ModelPool
from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs import text as texts
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.language.text_model import UNSET, TextModel, position_table
from interpreto.model_wrapping.language.token_embeddings import EMBEDDINGS, replaced
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, provenance
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.tasks.classification import check_target, logits_of, probabilities, settle
from interpreto.model_wrapping.tasks.detection import unwrapped
from interpreto.model_wrapping.wrapper import InferenceWrapper


@final
class TextClassification(InferenceWrapper):
    """A sequence classifier and its tokenizer.

    Args:
        model: A `...ForSequenceClassification` model, possibly inside a shell of torch.compile or PEFT.
        processor: Its tokenizer, or a processor that has one.
        runtime: How the model is run.

    Raises:
        ModelError: if there is no tokenizer.
    """

    task, modality, ragged = "text-classification", "text", True
    no_attention = ""
    may_read_padding = True

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        processor = with_own_tokenizer(processor)
        # Only a model with a plain table of absolute positions is known to leave the padding id alone.
        table = position_table(unwrapped(model))
        text = TextModel.of(model, processor, reads_padding=table is None or table.padding_idx is not None)
        # Classifiers on an encoder and a decoder read the last end-of-text token, and refuse batches of unlike counts.
        ends = {text.config.eos_token_id} if text.config.is_encoder_decoder else set()
        self.text = text.reading_end(frozenset(ends - {None}))
        self.processor, self.runtime = processor, runtime
        self.pool = ModelPool(self.text.model, self._on, runtime.device)
        # Embeddings are replaced by a hook.
        self.no_gradients = self.text.no_gradients or self.no_hooks
        # Without anything that may be padded, only rows of one length share a batch.
        taken = self.text.parameters
        self.padding = self.text.padding if "attention_mask" in taken or taken.takes_any else {}
        self.autograd = Autograd(self.module, self._outputs)
        self.inside = CaptureEngine(self.text.model, self._outputs, words=partial(texts.words, self.text), ragged=True)

    @property
    def module(self) -> nn.Module:
        return self.text.model

    def is_one(self, inputs: Any) -> bool:
        return texts.is_one_text(inputs)

    def split(self, inputs: Any) -> Iterator[texts.Raw]:
        return texts.split_texts(inputs)

    def prepare(self, raw: texts.Raw) -> TextSample:
        sample = texts.encode(raw, self.text, self.padding, self.runtime.truncation)
        if self.text.ends:
            texts.check_ends(sample, self.text)
        return sample

    def check_target(self, spec: Any, sample: Any = None) -> None:
        # The config inside of a module that is none of transformers belongs to a part of it.
        if isinstance(unwrapped(self.text.model), PreTrainedModel):
            check_target(spec, self.text.config, self.text.model)

    def resolve_targets(
        self, sample: TextSample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        return settle(sample, spec, self.text.config, capture)

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 k"]) -> tuple[float | None, ...] | None:
        return probabilities(targets, outputs, self.runtime, self.text.config)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self.autograd.respond(requests) if requests[0].capture is None else self.inside.respond(requests)

    def provenance(self) -> dict[str, Any]:
        return provenance(self.text.model, self.text.config, self.runtime)

    def _outputs(self, rows: Rows) -> Float[Tensor, "p k"]:
        text = self.text
        fields: dict[str, Any] = dict(rows.to(text.device).fields)
        embeddings = fields.pop(EMBEDDINGS, None)
        if "use_cache" in text.parameters:
            fields["use_cache"] = False
        with ExitStack() as stack:
            stack.enter_context(precision(text.model, self.runtime.autocast, text.device))
            stack.enter_context(_padding(text.config, fields))
            if embeddings is not None:
                stack.enter_context(replaced(text.embedding, fields["input_ids"], embeddings))
            return self.runtime.explained(logits_of(text.run(fields), len(rows), self.runtime.model_output))


@contextmanager
def _padding(config: Any, fields: dict[str, Any]) -> Iterator[None]:
    """Give a model without a padding token one that no row uses, for as long as a batch takes.

    Classifiers on decoders find the last token by it and refuse batches without.
    """
    ids = fields["input_ids"]
    if getattr(config, "pad_token_id", None) is not None:
        yield
        return
    used = set(ids.unique().tolist())
    unused = next(token for token in count() if token not in used)
    fields["input_ids"] = torch.where(ids == UNSET, unused, ids)
    config.pad_token_id = unused
    try:
        yield
    finally:
        config.pad_token_id = None
