"""Text classifiers of transformers: encoders, and decoders with a classification head."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.execution.torch_engine import TorchEngine
from interpreto.model_wrapping.inputs.text import TextReader
from interpreto.model_wrapping.inputs.text_encoding import word_tokens
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.internals.capture_engine import CaptureEngine
from interpreto.model_wrapping.language.text_model import UNSET, TextModel, position_table
from interpreto.model_wrapping.language.token_embeddings import replaced
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, hook_obstacle_of, unwrap_peft
from interpreto.model_wrapping.sample import EMBEDDINGS
from interpreto.model_wrapping.tasks.classification import ClassTargetResolver, logits_of
from interpreto.model_wrapping.wrapper import WrapperParts


def text_classification(model: nn.Module, processor: object, runtime: Runtime) -> WrapperParts:
    """The parts for a sequence classifier, possibly wrapped by torch.compile or PEFT, and its tokenizer."""
    processor = with_own_tokenizer(processor)
    # Only a model with a plain table of absolute positions is known to ignore the padding id.
    table = position_table(unwrap_peft(model))
    text_model = TextModel.of(model, processor, reads_padding=table is None or table.padding_idx is not None)
    # Classifiers on an encoder and a decoder read the last end-of-text token, and refuse batches with unequal counts.
    ends = {text_model.config.eos_token_id} if text_model.config.is_encoder_decoder else set()
    text_model = text_model.reading_end(frozenset(ends - {None}))
    # Without an argument that marks padding, only rows of one length can share a batch.
    takes_mask = text_model.takes_attention_mask or text_model.parameters.takes_any
    padding = text_model.padding if takes_mask else {}
    # The config of a module that is not of transformers may belong to a part of it.
    is_transformers = isinstance(unwrap_peft(text_model.model), PreTrainedModel)
    forward = _TokensToScores(text_model, runtime)
    capture = CaptureEngine(text_model.model, forward, words=partial(word_tokens, text_model), ragged=True)
    # Embeddings are replaced by a hook.
    obstacle = text_model.gradient_obstacle or hook_obstacle_of(text_model.model)
    engine = TorchEngine(
        text_model.model,
        forward,
        capture,
        text_model.config,
        runtime,
        gradient_obstacle=obstacle,
        may_read_padding=True,
    )
    reader = TextReader(text_model, padding, runtime.truncation, counts_ends=True)
    resolver = ClassTargetResolver(text_model.config, text_model.model if is_transformers else None, runtime)
    return WrapperParts("text-classification", reader, resolver, engine, processor, text_model, runtime=runtime)


@final
@dataclass(frozen=True, eq=False)
class _TokensToScores:
    """From rows of tokens to the scores of classes."""

    text_model: TextModel
    runtime: Runtime

    def __call__(self, rows: Rows) -> Float[Tensor, "p k"]:
        text_model = self.text_model
        device = text_model.device
        fields: dict[str, Any] = dict(rows.to(device).fields)
        embeddings = fields.pop(EMBEDDINGS, None)
        if "use_cache" in text_model.parameters:
            fields["use_cache"] = False
        with ExitStack() as stack:
            stack.enter_context(precision(text_model.model, self.runtime.autocast, device))
            stack.enter_context(_padding_token(text_model.config, fields))
            if embeddings is not None:
                stack.enter_context(replaced(text_model.embedding, fields["input_ids"], embeddings))
            return self.runtime.explained(logits_of(text_model.run(fields), len(rows), self.runtime.model_output))


@contextmanager
def _padding_token(config: Any, fields: dict[str, Any]) -> Iterator[None]:
    """Give a model without a padding token one that no row uses, for the duration of a batch.

    Classifiers on decoders find the last token by it, and refuse batches without one.
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
