"""The common part of all text models: tokenizer, fields, positions and token embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import InputError, ModelError
from interpreto.model_wrapping.execution.forward_arguments import ForwardArguments
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.internals.architecture import first_tensor
from interpreto.model_wrapping.language.own_module import text_config, token_table
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import device_of, unwrap_model, unwrap_peft
from interpreto.model_wrapping.sample import EMBEDDINGS
from interpreto.typing import Tokenizer

UNSET = -1
"""The padding value of token ids if the config defines no padding token."""


@final
@dataclass(frozen=True, eq=False)
class TextModel:
    """A transformer that reads tokens, and its tokenizer.

    Attributes:
        model: A text model of transformers, possibly wrapped by PEFT.
        tokenizer: Its tokenizer.
        config: The config of its text part.
        parameters: The arguments of its forward.
        fields: The tokenizer's outputs that the model reads.
        padding: The value that pads each field.
        limit: Number of tokens that the model can read.
        reads_padding: Whether the model counts positions, or finds the last token, by the padding token, so that no
            token may be replaced by it.
        gradient_obstacle: Why there are no gradients for token embeddings, as a sentence; empty if there are.
        ends: Tokens by which the model finds the start and end of a text; no token may be replaced by one of them.
        table: The module that looks up tokens, if the model does not name it.
        attention_hides_tokens: Whether a 0 in the attention mask hides a token from all others without shifting their
            positions.
    """

    model: Any
    tokenizer: Any
    config: Any
    parameters: ForwardArguments
    fields: tuple[str, ...]
    padding: Mapping[str, int | float]
    limit: int
    reads_padding: bool
    gradient_obstacle: str
    ends: frozenset[int] = frozenset()
    table: Any = None
    attention_hides_tokens: bool = False

    @staticmethod
    def of(model: nn.Module, processor: object, reads_padding: bool) -> "TextModel":
        """Combine a model, possibly wrapped by torch.compile, with its tokenizer or a processor that contains one.

        Raises:
            ModelError: if there is no tokenizer.
        """
        tokenizer: Any = _tokenizer(processor)
        inner = unwrap_peft(model)
        config, parameters = text_config(inner), ForwardArguments.of(inner)
        # Some configs do not define this attribute.
        pad = getattr(config, "pad_token_id", None)
        return TextModel(
            unwrap_model(model),
            tokenizer,
            config,
            parameters,
            tuple(name for name in tokenizer.model_input_names if name in parameters),
            {
                "input_ids": UNSET if pad is None else pad,
                "attention_mask": 0,
                "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
                EMBEDDINGS: 0.0,
            },
            # A tokenizer may have no limit (a very large number), and a tokenizer's limit may be larger than the
            # position table.
            min(tokenizer.model_max_length, position_limit(inner)),
            reads_padding,
            _gradient_obstacle(inner, len(tokenizer)),
        )

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return device_of(self.model)

    @property
    def takes_attention_mask(self) -> bool:
        """Whether the model takes an attention mask."""
        return "attention_mask" in self.parameters

    @property
    def embedding(self) -> Any:
        """The module that looks up tokens."""
        return token_table(unwrap_peft(self.model), len(self.tokenizer)) if self.table is None else self.table

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens that the model has embeddings of; None if it has no table."""
        table = self.embedding
        weight = getattr(table, "weight", None)
        return getattr(table, "num_embeddings", None if weight is None else len(weight))

    def run(self, fields: Mapping[str, object]) -> Any:
        """Run a batch; a module that is not of transformers gets only the fields that its forward names."""
        parameters = self.parameters
        accepted = {name: field for name, field in fields.items() if name in parameters or parameters.takes_any}
        # A forward without a parameter of this name gets the ids as its first argument.
        if "input_ids" in parameters or not parameters.names:
            return self.model(**accepted)
        accepted.pop("input_ids", None)
        return self.model(fields["input_ids"], **accepted)

    def embed(self, ids: Int[Tensor, "*l"]) -> Float[Tensor, "*l d"]:
        """The model's token embeddings in float32, as its own module returns them: that of Gemma scales them."""
        table = self.embedding
        embeddings = first_tensor(table(ids.to(device_of(table))))
        assert embeddings is not None
        return embeddings.detach().float()

    def reads_as_padding(self, token: int) -> bool:
        """Whether the model would take this token for padding, or for the end of a text."""
        return token in self.ends or (self.reads_padding and token == getattr(self.config, "pad_token_id", None))

    def reading_end(self, ends: frozenset[int]) -> "TextModel":
        """A copy for a model that finds the end of a text by these tokens."""
        return replace(self, ends=ends)

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        return list(tokenized(self.tokenizer, text, add_special_tokens=False)["input_ids"])

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check token ids.

        Raises:
            InputError: if the tokenizer does not have one of them, or the model has no embedding for it.
        """
        n_tokens, n_embeddings = len(self.tokenizer), self.vocabulary_size
        largest = max(ids, default=0)
        # Without this check PyTorch raises an index error on a CPU; on a GPU a failed assertion makes the device
        # unusable for the rest of the process.
        if n_embeddings is not None and n_tokens > largest >= n_embeddings:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise InputError(
                f"The tokenizer gives the token {token!r} the id {largest}, but the model has embeddings for "
                f"{n_embeddings} tokens: use the tokenizer of this model, or "
                "model.resize_token_embeddings(len(tokenizer)) before you train it."
            )
        if min(ids, default=0) < 0 or largest >= n_tokens:
            invalid = [token for token in ids if not 0 <= token < n_tokens]
            raise InputError(f"{invalid[:8]} are not token ids: the tokenizer has {n_tokens} tokens, counted from 0.")

    def check_token_types(self, rows: Rows) -> None:
        """Check token types, which some models do not distinguish.

        Raises:
            InputError: if the model has no embedding for one of them.
        """
        types, n_types = rows.fields.get("token_type_ids"), getattr(self.config, "type_vocab_size", None)
        if types is not None and n_types and int(types.max()) >= n_types:
            raise InputError(
                f"The tokens have types 0 to {int(types.max())}, but the model has embeddings for {n_types}: pass "
                "one text rather than a pair."
            )


def _tokenizer(processor: object) -> Tokenizer:
    if processor is None:
        raise ModelError("A text model needs its tokenizer: Method(model, tokenizer).")
    if not isinstance(processor, Tokenizer):
        inner = getattr(processor, "tokenizer", None)
        if inner is None:
            raise ModelError(f"A text model needs a tokenizer, got {type(processor).__name__}.")
        return inner
    return processor


def position_limit(model: Any) -> int:
    """The number of tokens that fit a model's position table; RoBERTa counts positions from the padding id on."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        # Without a table of positions (relative or recurrent models) there is no limit.
        return 10**9
    table = position_table(model)
    if table is None:
        return limit
    return table.num_embeddings - first_position(model)


def first_position(model: object) -> int:
    """The position id of a text's first token: models like RoBERTa count from after the padding id."""
    table = position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def reads_length(config: Any) -> bool:
    """Whether rotary embeddings depend on the length of the longest text in a batch."""
    rope = getattr(config.get_text_config(), "rope_parameters", None)
    # Models with several types of layers have a dictionary of parameters for each type.
    kinds = [rope, *rope.values()] if isinstance(rope, dict) else []
    return any(isinstance(kind, dict) and kind.get("rope_type") in ("longrope", "dynamic") for kind in kinds)


def adds_tokens(model: object) -> bool:
    """Whether a PEFT adapter adds virtual tokens, or keys and values, in front of each text.

    Such an adapter counts positions itself, and does not return a cache that a caller could resume from.
    """
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def position_table(model: Any) -> nn.Embedding | None:
    """A model's table of absolute positions; None if it has no module of that name."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _gradient_obstacle(model: nn.Module, size: int) -> str:
    """Why scores cannot be differentiated with respect to token embeddings, as a sentence; empty if they can."""
    name = type(model).__name__
    if text_config(model).is_encoder_decoder:
        return f"{name} reads its text twice, in the encoder and in the decoder, through two embedding tables."
    return f"{name} has no table of token embeddings." if token_table(model, size) is None else ""
