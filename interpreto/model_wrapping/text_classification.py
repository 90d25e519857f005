"""Text classifiers of transformers: encoders, and decoders with a classification head."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError, UnsupportedError
from interpreto.model_wrapping import autograd, texts
from interpreto.model_wrapping.classification import check_target, find_targets, logits_of
from interpreto.model_wrapping.conversation import Answer, Ask, Plan, Targets
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, borrowed, device_of, precision, provenance
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.task import unwrapped
from interpreto.model_wrapping.wrapper import Wrapper
from interpreto.typing import Tokenizer

EMBEDDINGS = "embeddings"
"""The field of rows that replaces the model's own token embeddings."""

_READ_PADDING = ("xlnet", "reformer")
"""Models whose output depends on padding in spite of their attention mask."""

_UNSET = -1
"""Stands for padding in rows of a model whose config names no padding token."""


@final
class TextClassification(Wrapper):
    """A sequence classifier and its tokenizer.

    Args:
        model: A `...ForSequenceClassification` model, possibly inside a shell of torch.compile or PEFT.
        processor: Its tokenizer, or a processor that has one.
        runtime: How the model is run.

    Raises:
        ModelError: if there is no tokenizer.
    """

    task, modality, ragged = "text-classification", "text", True

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        self.model = getattr(model, "_orig_mod", model)
        self.tokenizer: Any = _tokenizer(processor)
        self.runtime = runtime
        self.config = unwrapped(model).config.get_text_config()
        parameters = inspect.signature(unwrapped(model).forward).parameters
        self.fields = [name for name in self.tokenizer.model_input_names if name in parameters]
        self.options = {"use_cache": False} if "use_cache" in parameters else {}
        self.no_gradients = _why_no_gradients(unwrapped(model))
        self.padding = {
            "input_ids": _UNSET if self.config.pad_token_id is None else self.config.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": getattr(self.tokenizer, "pad_token_type_id", 0),
            EMBEDDINGS: 0.0,
        }
        if "attention_mask" not in parameters or self.config.model_type in _READ_PADDING:
            # Without anything that may be padded, only rows of one length share a batch.
            self.padding = {}
        self.limit = min(self.tokenizer.model_max_length, position_limit(unwrapped(model)))

    def is_one(self, inputs: Any) -> bool:
        return texts.is_one_text(inputs)

    def split(self, inputs: Any) -> Iterator[texts.Raw]:
        return texts.split_texts(inputs)

    def prepare(self, raw: texts.Raw) -> TextSample:
        return texts.encode(raw, self.tokenizer, self.fields, self.padding, self.limit, self.runtime.truncation)

    def check_target(self, spec: Any) -> None:
        check_target(spec, self.config)

    def find_targets(self, sample: TextSample, spec: Any) -> Plan[tuple[Targets, Float[Tensor, " t"]]]:
        return find_targets(sample.rows, spec, self.config)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return autograd.answers(asks, self._outputs)

    def borrowed(self) -> AbstractContextManager[None]:
        return borrowed(self.model, self.runtime)

    def provenance(self) -> dict[str, Any]:
        return provenance(self.model, self.config, self.runtime)

    def embed(self, ids: Int[Tensor, "*l"]) -> Float[Tensor, "*l d"]:
        """The model's token embeddings in float32, as its own module gives them: Gemma scales them there."""
        return self._embedding(ids.to(device_of(self.model))).detach().float()

    @property
    def _embedding(self) -> Any:
        return unwrapped(self.model).get_input_embeddings()

    def _outputs(self, rows: Rows) -> Float[Tensor, "p k"]:
        device = device_of(self.model)
        fields = dict(rows.to(device).fields)
        embeddings = fields.pop(EMBEDDINGS, None)
        with _padding(self.config, fields), precision(self.runtime, device):
            if embeddings is None:
                return self.runtime.explained(logits_of(self.model(**fields, **self.options)))
            with _replaced(self._embedding, fields["input_ids"], embeddings):
                return self.runtime.explained(logits_of(self.model(**fields, **self.options)))


def _tokenizer(processor: Any) -> Tokenizer:
    if processor is None:
        raise ModelError("A text model needs its tokenizer: Method(model, tokenizer).")
    if not isinstance(processor, Tokenizer):
        inner = getattr(processor, "tokenizer", None)
        if inner is None:
            raise ModelError(f"A text model needs a tokenizer, got {type(processor).__name__}.")
        return inner
    return processor


def position_limit(model: Any) -> int:
    """How many tokens fit a model's position table; RoBERTa and its kin count positions from the padding id on."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return 10**9
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - reserved
    return limit


@contextmanager
def _padding(config: Any, fields: dict[str, Tensor]) -> Iterator[None]:
    """Give a model without a padding token one that no row uses, for as long as a batch takes.

    Classifiers on decoders find the last token by it and refuse batches without.
    """
    ids = fields["input_ids"]
    if config.pad_token_id is not None:
        yield
        return
    used = set(ids.unique().tolist())
    unused = next(token for token in range(config.vocab_size) if token not in used)
    fields["input_ids"] = torch.where(ids == _UNSET, unused, ids)
    config.pad_token_id = unused
    try:
        yield
    finally:
        config.pad_token_id = None


def _why_no_gradients(model: Any) -> str:
    """Why the score cannot be differentiated for the token embeddings, empty if it can."""
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        return f"{name} reads its text twice, in the encoder and in the decoder, through tables of their own."
    try:
        model.get_input_embeddings()
    except NotImplementedError:
        return f"{name} has no table of token embeddings."
    return ""


@contextmanager
def _replaced(module: nn.Module, ids: Int[Tensor, "p l"], embeddings: Float[Tensor, "p l d"]) -> Iterator[None]:
    """Let the embedding module answer with these embeddings while the ids stay in the call.

    The ids are read elsewhere too: positions are counted and the last token is found by them, which is why
    `inputs_embeds` gives other results. Only calls with these very ids are answered (GPT-2 looks up token types in the
    same table), also where the model has transposed them or added padding behind them.

    Raises:
        UnsupportedError: if the model never looked the ids up.
    """
    answered = []

    def answer(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        asked = given[0]
        if asked.shape == ids.T.shape != ids.shape and torch.equal(asked, ids.T):
            answered.append(True)
            return embeddings.transpose(0, 1).to(output.dtype)
        length = ids.shape[1]
        if asked.ndim != 2 or len(asked) != len(ids) or not torch.equal(asked[:, :length], ids):
            return None
        answered.append(True)
        return torch.cat([embeddings.to(output.dtype), output[:, length:]], dim=1)

    handle = module.register_forward_hook(answer)
    try:
        yield
    finally:
        handle.remove()
    if not answered:
        raise UnsupportedError(
            "This model does not look its tokens up in its table of input embeddings, so gradients for them cannot be "
            "had; methods that hide parts (Occlusion, Lime, KernelShap, Sobol, Rise) do without."
        )
