"""What all models that read texts share: tokenizer, fields, positions, token embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError
from interpreto.model_wrapping.execution.forward_arguments import ForwardArguments
from interpreto.model_wrapping.internals.architecture import first_tensor
from interpreto.model_wrapping.language.own_module import text_config, token_table
from interpreto.model_wrapping.language.token_embeddings import EMBEDDINGS
from interpreto.model_wrapping.runtime import device_of
from interpreto.model_wrapping.tasks.detection import unwrap_model, unwrapped
from interpreto.typing import Tokenizer

UNSET = -1
"""Stands for padding in rows of a model whose config names no padding token."""


@final
@dataclass(frozen=True, eq=False)
class TextModel:
    """A transformer that reads tokens, and its tokenizer.

    Attributes:
        model: A text model of transformers, possibly in a shell of PEFT.
        tokenizer: Its tokenizer.
        config: The config of its text part.
        parameters: What its forward takes.
        fields: The tokenizer's outputs that the model reads.
        padding: What fills up each field.
        limit: How many tokens the model can read.
        reads_padding: Whether the model counts positions or finds the last token by the padding token, so that no
            word may become it.
        no_gradients: Why gradients for the token embeddings cannot be had, empty where they can.
        ends: The tokens by which the model finds where a text begins and ends; no word may become one of them.
        table: The module that looks tokens up, where the model does not name it.
    """

    model: Any
    tokenizer: Any
    config: Any
    parameters: ForwardArguments
    fields: tuple[str, ...]
    padding: Mapping[str, int | float]
    limit: int
    reads_padding: bool
    no_gradients: str
    ends: frozenset[int] = frozenset()
    table: Any = None

    @staticmethod
    def of(model: nn.Module, processor: Any, reads_padding: bool) -> "TextModel":
        """A model, possibly inside a shell such as that of torch.compile, and its tokenizer or what has one.

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
            _why_no_gradients(inner, len(tokenizer)),
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    @property
    def embedding(self) -> Any:
        """The module that looks tokens up."""
        return token_table(unwrapped(self.model), len(self.tokenizer)) if self.table is None else self.table

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model has embeddings of; None where there is no table to tell."""
        table = self.embedding
        weight = getattr(table, "weight", None)
        return getattr(table, "num_embeddings", None if weight is None else len(weight))

    def run(self, fields: Mapping[str, Any]) -> Any:
        """What the model returns for a batch; of a module that is none of transformers, for what its forward names."""
        taken = self.parameters
        known = {name: field for name, field in fields.items() if name in taken or taken.takes_any}
        if "input_ids" in taken or not taken.names:
            return self.model(**known)
        known.pop("input_ids", None)
        return self.model(fields["input_ids"], **known)

    def embed(self, ids: Int[Tensor, "*l"]) -> Float[Tensor, "*l d"]:
        """The model's token embeddings in float32, as its own module gives them: Gemma scales them there."""
        found = first_tensor(self.embedding(ids.to(self.device)))
        assert found is not None
        return found.detach().float()

    def reads_as_padding(self, token: int) -> bool:
        """Whether a word must not become this token, because the model would take it for padding, or for the end."""
        return token in self.ends or (self.reads_padding and token == getattr(self.config, "pad_token_id", None))

    def reading_end(self, ends: frozenset[int]) -> "TextModel":
        """The same for a model that finds the end of a text by these tokens."""
        return replace(self, ends=ends)


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


def _why_no_gradients(model: nn.Module, size: int) -> str:
    """Why the score cannot be differentiated for the token embeddings, empty if it can."""
    name = type(model).__name__
    if text_config(model).is_encoder_decoder:
        return f"{name} reads its text twice, in the encoder and in the decoder, through tables of their own."
    return f"{name} has no table of token embeddings." if token_table(model, size) is None else ""
