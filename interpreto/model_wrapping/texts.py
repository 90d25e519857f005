"""From a user's texts to prepared samples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.text_model import TextModel
from interpreto.model_wrapping.tokenizing import tokenized

Raw = str | tuple[str, str] | Mapping[str, Any]


_FIELDS = ("input_ids", "attention_mask", "token_type_ids")


def is_one_text(inputs: Any) -> bool:
    """Whether the user gave one text rather than several.

    Raises:
        InputError: if it can be read in both ways.
    """
    if isinstance(inputs, tuple):
        raise _tuple_of_texts(inputs)
    if isinstance(inputs, Mapping):
        return "input_ids" not in inputs or _is_flat(inputs["input_ids"]) or len(inputs["input_ids"]) == 1
    return isinstance(inputs, str)


def _tuple_of_texts(inputs: tuple[Any, ...]) -> InputError:
    shown = ", ".join(repr(item[:20] if isinstance(item, str) else item)[:40] for item in inputs[:3])
    pair = f"a pair is [({shown})] or {{'text': ..., 'text_pair': ...}}, and " if len(inputs) == 2 else ""
    return InputError(
        f"A tuple of {len(inputs)} can be one sample or {len(inputs)}: {pair}several texts are a list, [{shown}]."
    )


def _is_flat(ids: Any) -> bool:
    """Whether token ids are those of one text."""
    return ids.ndim == 1 if isinstance(ids, Tensor | np.ndarray) else bool(ids) and isinstance(ids[0], int)


def split_texts(inputs: Any) -> Iterator[Raw]:
    """The texts one by one.

    Raises:
        InputError: if something in there is no text, pair of texts or tokenised mapping.
    """
    if isinstance(inputs, Mapping) and "text" in inputs and "input_ids" not in inputs:
        yield _of_named(inputs)
    elif isinstance(inputs, Mapping):
        yield from _split_mapping(inputs)
    elif isinstance(inputs, str) or _is_pair(inputs):
        yield inputs
    elif isinstance(inputs, Iterable):
        for item in inputs:
            if not (isinstance(item, str | Mapping) or _is_pair(item)):
                raise _no_text(item)
            yield from split_texts(item)
    else:
        raise _no_text(inputs)


def _of_named(inputs: Mapping[str, Any]) -> Raw:
    """A text, or a pair of texts, by the names of datasets and pipelines; what else is in there is left."""
    known = {name: inputs[name] for name in ("text", "text_pair") if inputs.get(name) is not None}
    if "text" not in known or not all(isinstance(part, str) for part in known.values()):
        found = ", ".join(
            f"{name!r} ({type(inputs[name]).__name__})" for name in ("text", "text_pair") if name in inputs
        )
        raise InputError(f"'text' and 'text_pair' of a mapping must be strings; this one has {found}.")
    return (known["text"], known["text_pair"]) if "text_pair" in known else known["text"]


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)


def _no_text(item: Any) -> InputError:
    return InputError(
        f"Expected a text, got {type(item).__name__}; give a string, a tuple of two strings in a list (a pair), "
        "{'text': ..., 'text_pair': ...}, a tokenised mapping with 'input_ids', or a list of these."
    )


def _split_mapping(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Tensor]]:
    if "input_ids" not in inputs:
        raise InputError(f"A tokenised mapping needs 'input_ids'; it has {', '.join(map(repr, inputs))}.")
    given = {name: inputs[name] for name in _FIELDS if name in inputs}
    rows = (
        [given]
        if _is_flat(given["input_ids"])
        else [{name: value[row] for name, value in given.items()} for row in range(len(given["input_ids"]))]
    )
    for row in rows:
        # Copied, so that what the user does to the tensors later does not matter.
        yield {name: torch.as_tensor(value).clone() for name, value in row.items()}


def encode(raw: Raw, text: TextModel, padding: Mapping[str, int | float], truncate: bool | None) -> TextSample:
    """Tokenise one text, or take its tokens as they were given; padding is stripped.

    Args:
        raw: The text, pair of texts or tokenised mapping of one row.
        text: The model that is to read it.
        padding: What fills up each field when rows are joined.
        truncate: Whether a longer text is cut; None where it cannot be.

    Raises:
        InputError: if the text is empty or longer than the limit.
    """
    if isinstance(raw, Mapping):
        return _encode_given(raw, text, padding)
    tokenizer = text.tokenizer
    texts = raw if isinstance(raw, tuple) else (raw,)
    if not any(part.strip() for part in texts):
        raise InputError(f"The text {raw!r} is empty: there is nothing to explain.")
    options: dict[str, Any] = {"truncation": True, "max_length": text.limit} if truncate else {"truncation": False}
    if tokenizer.is_fast:
        options["return_offsets_mapping"] = True
    # Length is checked below with a better message than the tokenizer's warning.
    encoding: Any = tokenized(tokenizer, *texts, verbose=False, return_special_tokens_mask=True, **options)
    ids = torch.tensor(encoding["input_ids"])
    cure = "shorten the prompt" if truncate is None else "pass truncation=True to cut it, or a shorter text"
    check_length(len(ids), text.limit, cure)
    added = torch.tensor(encoding["special_tokens_mask"]).bool() | special(tokenizer, ids)
    if tokenizer.is_fast:
        spans = torch.tensor(encoding["offset_mapping"])
        sequence = torch.tensor([-1 if s is None else s for s in encoding.sequence_ids(0)])
        sequence = torch.where(added, -1, sequence)
    else:
        sequence = _sequence_of(added).clamp(max=len(texts) - 1)
        spans = align(_pieces(tokenizer, ids), texts, sequence)
    rows = rows_of(encoding, ids, text.fields, padding)
    return TextSample(rows, texts, raw, spans, sequence, tuple(tokenizer.convert_ids_to_tokens(ids.tolist())))


def _encode_given(given: Mapping[str, Any], text: TextModel, padding: Mapping[str, int | float]) -> TextSample:
    tokenizer = text.tokenizer
    real = given["attention_mask"].bool() if "attention_mask" in given else torch.ones_like(given["input_ids"]).bool()
    kept = {name: tensor[real].tolist() for name, tensor in given.items() if tensor.shape == real.shape}
    ids = torch.tensor(kept["input_ids"], dtype=torch.long)
    if not len(ids):
        raise InputError("The tokenised text is empty: its attention mask hides every token.")
    check_length(len(ids), text.limit, "tokenise with truncation=True, or give a shorter text")
    sequence = _sequence_of(_added(tokenizer, ids))
    texts = tuple(
        tokenizer.decode(ids[sequence == part].tolist(), clean_up_tokenization_spaces=False)
        for part in range(int(sequence.max()) + 1)
    )
    spans = align(_pieces(tokenizer, ids), texts, sequence)
    rows = rows_of(kept, ids, text.fields, padding)
    raw = (texts[0], texts[1]) if len(texts) == 2 else " ".join(texts)
    return TextSample(rows, texts, raw, spans, sequence, tuple(tokenizer.convert_ids_to_tokens(ids.tolist())))


def _added(tokenizer: Any, ids: Int[Tensor, " l"]) -> Bool[Tensor, " l"]:
    """Which tokens the tokenizer put around the text."""
    mask = torch.tensor(tokenizer.get_special_tokens_mask(ids.tolist(), already_has_special_tokens=True)).bool()
    return mask & special(tokenizer, ids)


def special(tokenizer: Any, ids: Int[Tensor, "*l"]) -> Bool[Tensor, "*l"]:
    """Which tokens are none of a text's own; unknown and masked words are words of the text."""
    around = {getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad")}
    words = {tokenizer.unk_token_id, tokenizer.mask_token_id} - around
    return torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids) - words), dtype=torch.long))


def words(text: TextModel, rows: Rows) -> Bool[Tensor, "p l"]:
    """Which tokens of rows are neither padding nor put around a text by the tokenizer."""
    return ~special(text.tokenizer, rows.fields["input_ids"]) & rows.fields["attention_mask"].bool()


def rows_of(encoding: Mapping[str, Any], ids: Int[Tensor, " l"], fields: Sequence[str], padding) -> Rows:
    """One row of these ids and of what else the tokenizer says of them."""
    tensors = {"input_ids": ids[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    for name in fields:
        if name in encoding and name not in tensors:
            tensors[name] = torch.as_tensor(encoding[name])[None]
    return Rows(tensors, dict(padding))


def check_length(length: int, limit: int, cure: str) -> None:
    """Refuse a text that does not fit the model.

    Raises:
        InputError: if it is too long; `cure` says what to do.
    """
    if length > limit:
        raise InputError(f"The text has {length} tokens but the model reads at most {limit}: {cure}.")


def _sequence_of(added: Bool[Tensor, " l"]) -> Int[Tensor, " l"]:
    """Which text each token belongs to: every run between added tokens is one; -1 for these."""
    begins = ~added & torch.cat([torch.ones(1, dtype=torch.bool), added[:-1]])
    return torch.where(added, -1, begins.long().cumsum(0) - 1)


def _pieces(tokenizer: Any, ids: Int[Tensor, " l"]) -> list[str]:
    """What every token looks like in a text."""
    return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids.tolist()]


def align(pieces: Sequence[str], texts: Sequence[str], sequence: Int[Tensor, " l"]) -> Int[Tensor, "l 2"] | None:
    """Where tokens lie in their texts, for tokenizers that do not say so: each is looked for behind the one before.

    Nothing but white space may lie between two tokens; where that fails (a tokenizer that rewrites its text), the
    answer is None rather than a guess.
    """
    spans = torch.zeros(len(pieces), 2, dtype=torch.long)
    ends = [0] * len(texts)
    for position, (piece, text) in enumerate(zip(pieces, sequence.tolist(), strict=True)):
        if text < 0:
            continue
        wanted = piece.strip().removeprefix("##").lower()
        written = str(texts[text])
        if not wanted:
            # A token of white space alone goes with the word behind it.
            space = len(written) - len(written[ends[text] :].lstrip()) - ends[text]
            spans[position] = torch.tensor([ends[text], ends[text] + space])
            continue
        start = written.lower().find(wanted, ends[text])
        if start < 0 or written[ends[text] : start].strip():
            return None
        ends[text] = start + len(wanted)
        spans[position] = torch.tensor([start, ends[text]])
    return spans
