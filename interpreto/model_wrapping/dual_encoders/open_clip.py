"""Finds the text tower of an OpenCLIP model, and gives its tokenizer the interface of transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from interpreto.errors import ModelError


@final
@dataclass(frozen=True, eq=False)
class TextTower:
    """The text tower of an OpenCLIP model.

    Attributes:
        embedding: The module of token embeddings.
        context_length: The fixed length of its input, to which texts are padded or truncated.
    """

    embedding: nn.Module
    context_length: int


def find_text_tower(model: Any) -> TextTower:
    """The text tower: part of the model itself (CLIP) or a module of its own (SigLIP, CoCa).

    Raises:
        ModelError: if the token embeddings or the context length cannot be found.
    """
    text_module = model if getattr(model, "token_embedding", None) is not None else getattr(model, "text", None)
    embedding = getattr(text_module, "token_embedding", None)
    if embedding is None and text_module is not None and getattr(text_module, "transformer", None) is not None:
        # OpenCLIP wraps text towers of transformers.
        embedding = text_module.transformer.get_input_embeddings()
    length = getattr(text_module, "context_length", None) or getattr(model, "context_length", None)
    if embedding is None or length is None:
        raise ModelError(f"{type(model).__name__} has no text tower with token embeddings.")
    return TextTower(embedding, int(length))


@final
class OpenClipTokenizer:
    """A tokenizer of OpenCLIP with the interface of transformers."""

    is_fast = False
    mask_token_id = unk_token_id = None

    def __init__(self, tokenizer: object, length: int) -> None:
        is_tokenizer = any(getattr(tokenizer, name, None) is not None for name in ("tokenizer", "encoder"))
        if not callable(tokenizer) or not is_tokenizer:
            raise ModelError(
                "An OpenCLIP model needs processor=(transform, tokenizer), in this order, the tokenizer from "
                f"open_clip.get_tokenizer(NAME). Got {type(tokenizer).__name__} as tokenizer."
            )
        self.tokenizer = tokenizer
        self.model_input_names = ["input_ids"]
        self.model_max_length = length
        self.hf_tokenizer = getattr(tokenizer, "tokenizer", None)
        if self.hf_tokenizer is None:
            # Releases before 2.24 do not name these tokens; they are always the last two of the vocabulary.
            self.bos_token_id = getattr(tokenizer, "sot_token_id", len(tokenizer.encoder) - 2)
            self.eos_token_id = getattr(tokenizer, "eot_token_id", len(tokenizer.encoder) - 1)
            self.pad_token_id = 0
            self.cls_token_id = self.sep_token_id = None
        else:
            hf_tokenizer = self.hf_tokenizer
            self.bos_token_id, self.eos_token_id = hf_tokenizer.bos_token_id, hf_tokenizer.eos_token_id
            self.cls_token_id, self.sep_token_id = hf_tokenizer.cls_token_id, hf_tokenizer.sep_token_id
            self.pad_token_id = hf_tokenizer.pad_token_id
            self.mask_token_id, self.unk_token_id = hf_tokenizer.mask_token_id, hf_tokenizer.unk_token_id
        # CLIP pads with token 0, which is also the token of "!", so it must not count as special.
        special_ids = {self.bos_token_id, self.eos_token_id, self.cls_token_id, self.sep_token_id}
        self.all_special_ids = sorted(special_ids - {None})

    def __call__(self, text: str, text_pair: object = None, **options: object) -> Mapping[str, Any]:
        if text_pair is not None:
            raise ModelError(
                "A model that compares images with texts reads one text at a time: text_pair= is not supported."
            )
        ids = self._ids(text)
        if options.get("add_special_tokens") is False:
            ids = [token for token in ids if token not in self.all_special_ids]
        elif options.get("truncation") and len(ids) > self.model_max_length:
            # CLIP reads the embedding at the end token, which truncation must keep.
            ids = [*ids[: self.model_max_length - 1], ids[-1]]
        special = [int(token in self.all_special_ids) for token in ids]
        return {"input_ids": ids, "special_tokens_mask": special, "attention_mask": [1] * len(ids)}

    def _ids(self, text: str) -> list[int]:
        if self.hf_tokenizer is not None:
            # OpenCLIP cleans a text before it passes it to the wrapped tokenizer.
            clean = getattr(self.tokenizer, "clean_fn", None)
            return list(
                self.hf_tokenizer(text if clean is None else clean(text), truncation=False, verbose=False)["input_ids"]
            )
        return [self.bos_token_id, *self.tokenizer.encode(text), self.eos_token_id]

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The strings of tokens in the vocabulary."""
        if self.hf_tokenizer is not None:
            return self.hf_tokenizer.convert_ids_to_tokens(ids)
        return self.tokenizer.decoder[ids] if isinstance(ids, int) else [self.tokenizer.decoder[i] for i in ids]

    def decode(self, token_ids: Any, **options: object) -> str:
        """The text of tokens."""
        ids = token_ids.tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        if self.hf_tokenizer is not None:
            return self.hf_tokenizer.decode(ids, **options)
        # Byte-pair tokens that end a word decode with a space after it.
        return self.tokenizer.decode(ids).rstrip(" ")

    def get_special_tokens_mask(self, ids: Sequence[int], already_has_special_tokens: bool = False) -> list[int]:
        """For each token 1 if it is special, else 0."""
        return [int(token in self.all_special_ids) for token in ids]

    def get_vocab(self) -> Mapping[str, int]:
        """The vocabulary: from the strings of tokens to their ids."""
        return self.tokenizer.encoder if self.hf_tokenizer is None else self.hf_tokenizer.get_vocab()

    def __len__(self) -> int:
        return len(self.get_vocab())
