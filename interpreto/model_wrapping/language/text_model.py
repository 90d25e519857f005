"""What all text models share: tokenizer, fields, positions and token embeddings."""

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
from interpreto.model_wrapping.runtime import device_of, unwrap_model, unwrapped
from interpreto.model_wrapping.sample import EMBEDDINGS
from interpreto.typing import Tokenizer

UNSET = -1
"""Stands for padding in rows of a model whose config names no padding token."""


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
        ends: Tokens by which the model finds where a text begins and ends; no token may be replaced by one of them.
        table: The module that looks up tokens, if the model does not name it.
        attention_hides_tokens: Whether a 0 in the attention mask hides a token from all others and moves none of them.
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
    def of(model: nn.Module, processor: Any, reads_padding: bool) -> "TextModel":
        """A model, possibly wrapped by torch.compile, and its tokenizer or a processor that has one.

        Raises:
            ModelError: if there is no tokenizer.
        """
        tokenizer: Any = _tokenizer(processor)
        inner = unwrapped(model)
        config, parameters = text_config(inner), ForwardArguments.of(inner)
        # Some configs have no such attribute at all.
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
        return token_table(unwrapped(self.model), len(self.tokenizer)) if self.table is None else self.table

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens that the model has embeddings of; None if it has no table."""
        table = self.embedding
        weight = getattr(table, "weight", None)
        return getattr(table, "num_embeddings", None if weight is None else len(weight))

    def run(self, fields: Mapping[str, Any]) -> Any:
        """The output for a batch; a module that is not of transformers gets the fields that its forward names."""
        taken = self.parameters
        known = {name: field for name, field in fields.items() if name in taken or taken.takes_any}
        if "input_ids" in taken or not taken.names:
            return self.model(**known)
        known.pop("input_ids", None)
        return self.model(fields["input_ids"], **known)

    def embed(self, ids: Int[Tensor, "*l"]) -> Float[Tensor, "*l d"]:
        """The model's token embeddings in float32, as its own module returns them: Gemma scales them there."""
        found = first_tensor(self.embedding(ids.to(self.device)))
        assert found is not None
        return found.detach().float()

    def reads_as_padding(self, token: int) -> bool:
        """Whether the model would take this token for padding, or for the end of a text."""
        return token in self.ends or (self.reads_padding and token == getattr(self.config, "pad_token_id", None))

    def reading_end(self, ends: frozenset[int]) -> "TextModel":
        """The same for a model that finds the end of a text by these tokens."""
        return replace(self, ends=ends)

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        return list(tokenized(self.tokenizer, text, add_special_tokens=False)["input_ids"])

    def check_ids(self, ids: Sequence[int]) -> None:
        """Check token ids.

        Raises:
            InputError: if the tokenizer does not have one of them, or the model has no embedding of it.
        """
        known, size = len(self.tokenizer), self.vocabulary_size
        largest = max(ids, default=0)
        if size is not None and known > largest >= size:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            raise InputError(
                f"The tokenizer gives the token {token!r} the id {largest}, and the model has embeddings of {size} "
                "tokens: use the tokenizer that belongs to the model, or model.resize_token_embeddings(len(tokenizer)) "
                "before you train it."
            )
        if min(ids, default=0) < 0 or largest >= known:
            wrong = [token for token in ids if not 0 <= token < known]
            raise InputError(f"{wrong[:8]} are not token ids: the tokenizer has {known} tokens, counted from 0.")

    def check_token_types(self, rows: Rows) -> None:
        """Check token types: some models read no pairs.

        Raises:
            InputError: if the model has no embedding of one of them.
        """
        types, known = rows.fields.get("token_type_ids"), getattr(self.config, "type_vocab_size", None)
        if types is not None and known and int(types.max()) >= known:
            raise InputError(
                f"The tokens have the types 0 to {int(types.max())}, and the model has embeddings of {known}: pass "
                "one text rather than a pair."
            )


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
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return 10**9
    table = position_table(model)
    if table is None:
        return limit
    return table.num_embeddings - first_position(model)


def first_position(model: Any) -> int:
    """The position id of a text's first token: RoBERTa and its kin count from behind the padding id."""
    table = position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def reads_length(config: Any) -> bool:
    """Whether a model turns its positions by a factor that depends on how long the longest text of a batch is."""
    rope = getattr(config.get_text_config(), "rope_parameters", None)
    kinds = [rope, *rope.values()] if isinstance(rope, dict) else []
    return any(isinstance(kind, dict) and kind.get("rope_type") in ("longrope", "dynamic") for kind in kinds)


def adds_tokens(model: Any) -> bool:
    """Whether an adapter of PEFT puts tokens, or keys and values, of its own before each text.

    It counts positions itself then, and keeps no cache that a caller could go on from.
    """
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def position_table(model: Any) -> nn.Embedding | None:
    """A model's table of absolute positions, None where it has none by that name."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _gradient_obstacle(model: nn.Module, size: int) -> str:
    """Why the score cannot be differentiated for token embeddings, as a sentence; empty if it can."""
    name = type(model).__name__
    if text_config(model).is_encoder_decoder:
        return f"{name} reads its text twice, in the encoder and in the decoder, through tables of their own."
    return f"{name} has no table of token embeddings." if token_table(model, size) is None else ""
