"""Reading a user's texts, pairs of texts and tokenized mappings."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.errors import InputError
from interpreto.model_wrapping.inputs.text_checks import check_ends
from interpreto.model_wrapping.inputs.text_encoding import FIELDS, Raw, encode
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.sample import Sample
from interpreto.type_guards import are_all, is_array, is_collection, is_integer, is_text_pair


@final
@dataclass(frozen=True, eq=False)
class TextReader(InputReader):
    """Reads texts, pairs of texts and tokenized mappings.

    Attributes:
        text_model: The model and its tokenizer.
        padding: The value that pads each field when rows are joined.
        truncation: Whether texts longer than the model's limit are truncated.
        counts_ends: Whether a text may contain no end tokens but those of the tokenizer, because the model searches for
            them.
        takes_pairs: Whether a pair of texts can be one sample.
    """

    modality = "text"
    ragged = True

    text_model: TextModel
    padding: Mapping[str, int | float]
    truncation: bool
    counts_ends: bool = False
    takes_pairs: bool = True

    def is_single(self, inputs: object) -> bool:
        # A model without pairs refuses a tuple when it is split, with a clearer message than that of is_one_text.
        return (self.takes_pairs or not isinstance(inputs, tuple)) and is_one_text(inputs)

    def split(self, inputs: object) -> Iterator[Raw]:
        return split_texts(inputs)

    def prepare_one(self, raw: Raw) -> Sample:
        if not self.takes_pairs and isinstance(raw, tuple):
            raise InputError("A model that compares images with texts reads one text at a time, not a pair.")
        sample = encode(raw, self.text_model, self.padding, self.truncation)
        if self.counts_ends and self.text_model.ends:
            check_ends(sample, self.text_model)
        return sample


def is_one_text(inputs: object) -> bool:
    """Whether the user passed one text rather than several.

    Raises:
        InputError: if the input is ambiguous.
    """
    if isinstance(inputs, tuple):
        raise _tuple_of_texts(inputs)
    if isinstance(inputs, Mapping):
        return "input_ids" not in inputs or _is_flat(inputs["input_ids"]) or len(inputs["input_ids"]) == 1
    return isinstance(inputs, str)


def _tuple_of_texts(inputs: tuple[object, ...]) -> InputError:
    shown = ", ".join(repr(item[:20] if isinstance(item, str) else item)[:40] for item in inputs[:3])
    pair = f"a pair is [({shown})] or {{'text': ..., 'text_pair': ...}}, and " if len(inputs) == 2 else ""
    return InputError(
        f"A tuple of {len(inputs)} can be one sample or {len(inputs)}: {pair}several texts are a list, [{shown}]."
    )


def _is_flat(ids: object) -> bool:
    """Whether token ids are those of one text.

    Raises:
        InputError: if they are neither a list of numbers nor a list of such lists.
    """
    if is_array(ids):
        if ids.ndim not in (1, 2):
            raise InputError(f"Input ids must have one axis, or two for several texts; these have {ids.ndim}.")
        return ids.ndim == 1
    if not isinstance(ids, Sequence) or isinstance(ids, str):
        raise InputError(f"Input ids must be a list, a tensor or an array; got {type(ids).__name__}.")
    return bool(ids) and is_integer(ids[0])


def split_texts(inputs: object) -> Iterator[Raw]:
    """Yield the texts one by one.

    Raises:
        InputError: if an entry is not a text, a pair of texts or a tokenized mapping.
    """
    if isinstance(inputs, Mapping):
        is_tokenized = "text" not in inputs or "input_ids" in inputs
        yield from _split_mapping(inputs) if is_tokenized else [_named_texts(inputs)]
    elif isinstance(inputs, str) or is_text_pair(inputs):
        yield inputs
    elif is_collection(inputs):
        for item in inputs:
            if not (isinstance(item, str | Mapping) or is_text_pair(item)):
                raise _not_a_text(item)
            yield from split_texts(item)
    else:
        raise _not_a_text(inputs)


def _named_texts(inputs: Mapping[str, Any]) -> Raw:
    """A text or a pair of texts from a mapping with the names of datasets and pipelines; other entries are ignored."""
    texts = {name: inputs[name] for name in ("text", "text_pair") if inputs.get(name) is not None}
    if "text" not in texts or not are_all(str, texts.values()):
        types = ", ".join(
            f"{name!r} ({type(inputs[name]).__name__})" for name in ("text", "text_pair") if name in inputs
        )
        raise InputError(f"'text' and 'text_pair' of a mapping must be strings; got {types}.")
    return (texts["text"], texts["text_pair"]) if "text_pair" in texts else texts["text"]


def _not_a_text(item: object) -> InputError:
    return InputError(
        f"Expected a text, got {type(item).__name__}; pass a string, a tuple of two strings in a list (a pair), "
        "{'text': ..., 'text_pair': ...}, a tokenised mapping with 'input_ids', or a list of these."
    )


def _split_mapping(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Tensor]]:
    if "input_ids" not in inputs:
        raise InputError(f"A tokenised mapping needs 'input_ids'; it has {', '.join(map(repr, inputs))}.")
    known_fields = {name: inputs[name] for name in FIELDS if name in inputs}
    # Other fields are kept: encoding refuses those that the model would read.
    others = {name: value for name, value in inputs.items() if name not in FIELDS and value is not None}
    rows = [known_fields] if _is_flat(known_fields["input_ids"]) else _rows_of(known_fields)
    for row in rows:
        # Cloned, so that later changes by the user have no effect.
        yield {**{name: _whole_numbers(name, value) for name, value in row.items()}, **others}


def _rows_of(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of each of several tokenized texts."""
    count = len(given["input_ids"])
    for name, values in given.items():
        n_values = len(values) if isinstance(values, Sized) else 0
        if n_values != count:
            raise InputError(
                f"There are input ids for {count} texts, but {name!r} for {n_values}: pass one row per text."
            )
    return [{name: values[row] for name, values in given.items()} for row in range(count)]


def _whole_numbers(name: str, given: object) -> Int[Tensor, " l"]:
    """A field of one tokenized text, as integers."""
    try:
        numbers = torch.as_tensor(given).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name!r} of a tokenised text must be integers: {error}") from error
    if numbers.ndim != 1 or numbers.is_floating_point() or numbers.is_complex():
        raise InputError(
            f"{name!r} of a tokenised text must be a list of integers; got {numbers.dtype} of shape "
            f"{tuple(numbers.shape)}."
        )
    return numbers.long()
