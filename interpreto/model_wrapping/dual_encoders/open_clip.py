"""OpenCLIP's text towers and tokenizers as the pipeline wants them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from interpreto.errors import ModelError


@final
@dataclass(frozen=True, eq=False)
class TextPart:
    """The text tower of an OpenCLIP model.

    Attributes:
        embedding: What looks tokens up.
        context_length: How many tokens it reads, always.
    """

    embedding: nn.Module
    context_length: int


def text_part(model: Any) -> TextPart:
    """The text tower: part of the model itself (CLIP) or a module of its own (SigLIP, CoCa).

    Raises:
        ModelError: if no table of tokens is found.
    """
    holder = model if getattr(model, "token_embedding", None) is not None else getattr(model, "text", None)
    table = getattr(holder, "token_embedding", None)
    if table is None and holder is not None and getattr(holder, "transformer", None) is not None:
        # A text tower of transformers inside of OpenCLIP.
        table = holder.transformer.get_input_embeddings()
    length = getattr(holder, "context_length", None) or getattr(model, "context_length", None)
    if table is None or length is None:
        raise ModelError(f"The text tower of {type(model).__name__} was not found.")
    return TextPart(table, int(length))


@final
class OpenClipTokenizer:
    """A tokenizer of OpenCLIP behind the questions that are asked of one of transformers."""

    is_fast = False
    mask_token_id = unk_token_id = None

    def __init__(self, tokenizer: Any, length: int) -> None:
        known = any(getattr(tokenizer, name, None) is not None for name in ("tokenizer", "encoder"))
        if not callable(tokenizer) or not known:
            raise ModelError(
                "An OpenCLIP model needs processor=(transform, tokenizer), in this order, the second one from "
                f"open_clip.get_tokenizer(NAME). What stands in its place is a {type(tokenizer).__name__}."
            )
        self.tokenizer = tokenizer
        self.model_input_names = ["input_ids"]
        self.model_max_length = length
        self.inner = getattr(tokenizer, "tokenizer", None)
        if self.inner is None:
            # Releases before 2.24 do not name the two; they were the last of the vocabulary always.
            self.bos_token_id = getattr(tokenizer, "sot_token_id", len(tokenizer.encoder) - 2)
            self.eos_token_id = getattr(tokenizer, "eot_token_id", len(tokenizer.encoder) - 1)
            self.pad_token_id = 0
            self.cls_token_id = self.sep_token_id = None
        else:
            inner = self.inner
            self.bos_token_id, self.eos_token_id = inner.bos_token_id, inner.eos_token_id
            self.cls_token_id, self.sep_token_id = inner.cls_token_id, inner.sep_token_id
            self.pad_token_id = inner.pad_token_id
            self.mask_token_id, self.unk_token_id = inner.mask_token_id, inner.unk_token_id
        # Token 0 is an exclamation mark to CLIP, with which it fills texts up as well.
        around = {self.bos_token_id, self.eos_token_id, self.cls_token_id, self.sep_token_id}
        self.all_special_ids = sorted(around - {None})

    def __call__(self, text: str, text_pair: Any = None, **options: Any) -> Mapping[str, Any]:
        if text_pair is not None:
            raise ModelError("A model that compares images with texts reads no pairs of texts.")
        ids = self._ids(text)
        if options.get("add_special_tokens") is False:
            ids = [token for token in ids if token not in self.all_special_ids]
        elif options.get("truncation") and len(ids) > self.model_max_length:
            ids = [*ids[: self.model_max_length - 1], ids[-1]]
        special = [int(token in self.all_special_ids) for token in ids]
        return {"input_ids": ids, "special_tokens_mask": special, "attention_mask": [1] * len(ids)}

    def _ids(self, text: str) -> list[int]:
        if self.inner is not None:
            # What the wrapped tokenizer does to a text first is its own.
            clean = getattr(self.tokenizer, "clean_fn", None)
            return list(
                self.inner(text if clean is None else clean(text), truncation=False, verbose=False)["input_ids"]
            )
        return [self.bos_token_id, *self.tokenizer.encode(text), self.eos_token_id]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The names of tokens."""
        if self.inner is not None:
            return self.inner.convert_ids_to_tokens(ids)
        return self.tokenizer.decoder[ids] if isinstance(ids, int) else [self.tokenizer.decoder[i] for i in ids]

    def decode(self, token_ids: Any, **options: Any) -> str:
        """What tokens look like in a text."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        if self.inner is not None:
            return self.inner.decode(ids, **options)
        return self.tokenizer.decode(ids).rstrip(" ")

    def get_special_tokens_mask(self, ids: Sequence[int], already_has_special_tokens: bool = False) -> list[int]:
        """1 for tokens that were put around a text."""
        return [int(token in self.all_special_ids) for token in ids]

    def get_vocab(self) -> Mapping[str, int]:
        """The tokens by name."""
        return self.tokenizer.encoder if self.inner is None else self.inner.get_vocab()

    def __len__(self) -> int:
        return len(self.get_vocab())
