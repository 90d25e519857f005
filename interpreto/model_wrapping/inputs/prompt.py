"""Prompts of language models: texts, token ids, and chats."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor, nn

from interpreto.errors import InputError, OptionError
from interpreto.model_wrapping.inputs.text import is_one_text, split_texts
from interpreto.model_wrapping.inputs.text_checks import check_length, check_text
from interpreto.model_wrapping.inputs.text_encoding import encode as encode_text
from interpreto.model_wrapping.inputs.text_encoding import rows_of, special_tokens
from interpreto.model_wrapping.inputs.tokenizing import tokenized
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import Sample, TextSample
from interpreto.type_guards import are_all, is_collection, is_integer

_PLACEHOLDER = "\ue000message\ue001"
"""A placeholder for the content of a message, to locate it in a rendered template; in private-use characters."""

_ACCEPTED = (
    "a string, token ids, a tokenised mapping with 'input_ids', a chat (a list of messages with 'role'), or a list"
)


@final
@dataclass(frozen=True, eq=False)
class PromptReader(InputReader):
    """Reads prompts of a language model: texts, token ids and chats.

    Attributes:
        text_model: The model and its tokenizer.
        padding: The value that pads each field when rows are joined.
        prepend_bos: Whether to prepend a beginning-of-sequence token if the tokenizer does not add one.
    """

    modality = "text"
    ragged = True

    text_model: TextModel
    padding: Mapping[str, int | float]
    prepend_bos: bool

    def is_single(self, inputs: object) -> bool:
        return is_one_prompt(inputs)

    def split(self, inputs: object) -> Iterator[Any]:
        return split_prompts(inputs)

    def from_saved(self, raw: object) -> Any:
        # The raw input of a result is (prompt, continuation), and the continuation is its target.
        return raw[0] if isinstance(raw, tuple) else raw

    def prepare_one(self, raw: object) -> Sample:
        return encode(raw, self.text_model, self.padding, self.prepend_bos)


def is_one_prompt(inputs: object) -> bool:
    """Whether the user passed one prompt rather than several."""
    return is_chat(inputs) or _is_ids(inputs) or (not isinstance(inputs, tuple) and is_one_text(inputs))


def is_chat(item: object) -> bool:
    """Whether a value is the list of messages of a chat."""
    return (
        isinstance(item, Sequence)
        and len(item) > 0
        and are_all(Mapping, item)
        and all("role" in message for message in item)
    )


def _is_ids(item: object) -> bool:
    """Whether a value is the token ids of one prompt."""
    if isinstance(item, np.ndarray):
        return item.ndim == 1 and item.dtype.kind in "iu"
    if isinstance(item, Tensor):
        return item.ndim == 1 and not (item.is_floating_point() or item.is_complex() or item.dtype == torch.bool)
    return isinstance(item, list | range) and bool(item) and all(map(is_integer, item))


def split_prompts(inputs: Any) -> Iterator[Any]:
    """Yield the prompts one by one.

    Raises:
        InputError: if an entry is not a prompt.
    """
    if is_chat(inputs):
        yield list(inputs)
    elif _is_ids(inputs):
        # Cloned, so that later changes by the user have no effect.
        yield {"input_ids": torch.as_tensor(inputs).clone()}
    elif isinstance(inputs, str):
        yield inputs
    elif isinstance(inputs, Mapping):
        if inputs.get("text_pair") is not None:
            raise InputError("A prompt of a language model is one text: 'text_pair' is not supported.")
        yield from split_texts(inputs)
    elif is_collection(inputs) and not isinstance(inputs, tuple):
        for item in inputs:
            if not (isinstance(item, str | Mapping) or is_chat(item) or _is_ids(item)):
                raise _not_a_prompt(item)
            yield from split_prompts(item)
    else:
        raise _not_a_prompt(inputs)


def _not_a_prompt(item: object) -> InputError:
    return InputError(f"Expected a prompt, got {type(item).__name__}; pass {_ACCEPTED} of these.")


def encode(
    raw: Any, text_model: TextModel, padding: Mapping[str, int | float], prepend_bos: bool = False
) -> TextSample:
    """Tokenize a prompt, or use its token ids as they are.

    A text that begins with the beginning-of-sequence token, as a rendered chat does, does not get a second one.

    Args:
        raw: A text, token ids or a chat.
        text_model: The model and its tokenizer.
        padding: The value that pads each field when rows are joined.
        prepend_bos: Whether to prepend a beginning-of-sequence token if the tokenizer does not add one.

    Raises:
        InputError: if the prompt is empty, longer than the model can read, or a chat without a template.
        OptionError: if there is no beginning-of-sequence token to prepend.
    """
    if isinstance(raw, list):
        return _encode_chat(raw, text_model, padding)
    sample = encode_text(raw, text_model, padding, truncate=None)
    if isinstance(raw, Mapping):
        return sample
    bos = text_model.tokenizer.bos_token_id
    ids = sample.rows.fields["input_ids"][0].tolist()
    # The text begins with the token already, and the tokenizer has added another.
    if bos is not None and ids[:2] == [bos, bos] and raw.lstrip().startswith(text_model.tokenizer.bos_token):
        return _without_first(sample)
    return _with_bos(sample, text_model) if prepend_bos and ids[0] != bos else sample


def _without_first(sample: TextSample) -> TextSample:
    """A prompt without its first token."""
    fields = {name: field[:, 1:] for name, field in sample.rows.fields.items()}
    spans = None if sample.spans is None else sample.spans[1:]
    rows = Rows(fields, sample.rows.padding)
    return replace(sample, rows=rows, spans=spans, text_index=sample.text_index[1:], tokens=sample.tokens[1:])


def _with_bos(sample: TextSample, text_model: TextModel) -> TextSample:
    """A prompt with a beginning-of-sequence token in front, which belongs to no unit."""
    tokenizer = text_model.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None:
        raise OptionError(
            "prepend_bos=True needs a beginning-of-sequence token, which this tokenizer does not define; set its "
            "bos_token, or omit prepend_bos=."
        )
    ids = torch.cat([torch.tensor([bos]), sample.rows.fields["input_ids"][0]])
    check_length(len(ids), text_model.limit, "shorten the prompt")
    # The mask and type of the new token are those of the token after it.
    fields = {name: torch.cat([field[:, :1], field], 1) for name, field in sample.rows.fields.items()}
    return replace(
        sample,
        rows=Rows({**fields, "input_ids": ids[None]}, sample.rows.padding),
        spans=None if sample.spans is None else nn.functional.pad(sample.spans, (0, 0, 1, 0)),
        text_index=nn.functional.pad(sample.text_index, (1, 0), value=-1),
        tokens=(tokenizer.convert_ids_to_tokens(bos), *sample.tokens),
    )


def _encode_chat(
    messages: list[Mapping[str, object]], text_model: TextModel, padding: Mapping[str, int | float]
) -> TextSample:
    """Render a chat with the model's template, and tokenize it.

    The texts of the sample are the contents of the messages; all other tokens count as added by the template.
    """
    tokenizer = text_model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("This tokenizer has no chat template, so a chat cannot be rendered as text; pass a string.")
    if not tokenizer.is_fast:
        raise InputError("A chat needs a fast tokenizer, which returns the offsets of tokens in the text.")
    non_empty = [message for message in messages if _content(message).strip()]
    if not non_empty:
        raise InputError("All messages of the chat are empty: there is nothing to explain.")
    check_text([_content(message) for message in non_empty])
    # A final message of the assistant is a prefill, which the model continues.
    has_prefill = messages[-1]["role"] == "assistant"

    def render(chat: list[Mapping[str, object]]) -> str:
        try:
            return tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=not has_prefill, continue_final_message=has_prefill
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"The tokenizer's chat template rejects this chat: {error}. Render it yourself and pass a string."
            ) from error

    # Rendered again with placeholders for the messages: what is between them is the template's own text.
    rendered = render(messages)
    template_parts = render([_with_content(m, _PLACEHOLDER) if m in non_empty else m for m in messages]).split(
        _PLACEHOLDER
    )
    # The template writes special tokens as text, so the tokenizer must not add them again.
    encoding: Any = tokenized(tokenizer, rendered, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = torch.tensor(encoding["input_ids"])
    check_length(len(ids), text_model.limit, "shorten the chat")
    offsets = torch.tensor(encoding["offset_mapping"])
    spans_of_messages = _message_spans([_content(message) for message in non_empty], template_parts, rendered)
    special = special_tokens(tokenizer, ids)
    text_index, spans = torch.full_like(ids, -1), torch.zeros_like(offsets)
    for number, (start, end) in enumerate(spans_of_messages):
        # A token that overlaps the border of a message belongs to it; its span is cut to the message.
        is_inside = (offsets[:, 0] < end) & (offsets[:, 1] > start) & ~special
        text_index[is_inside] = number
        spans[is_inside] = offsets[is_inside].clamp(start, end) - start
    texts = tuple(rendered[start:end] for start, end in spans_of_messages)
    names = tuple(tokenizer.convert_ids_to_tokens(ids.tolist()))
    roles = tuple(str(message["role"]) for message in non_empty)
    return TextSample(rows_of({}, ids, (), padding), texts, rendered, spans, "", text_index, names, roles=roles)


def _content(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    # Templates of multimodal models expect a list of parts such as {'type': 'text', 'text': ...}.
    if isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise InputError(f"The 'content' of a message must be a text; this one is {type(content).__name__}.")


def _with_content(message: Mapping[str, Any], new_content: str) -> Mapping[str, Any]:
    content = message["content"]
    return {**message, "content": new_content if isinstance(content, str) else [{**content[0], "text": new_content}]}


def _message_spans(contents: Sequence[str], template_parts: Sequence[str], rendered: str) -> list[tuple[int, int]]:
    """The start and the exclusive end of each message's characters in the rendered chat.

    Templates may strip white space, so a message is searched both as it is and stripped.

    Args:
        contents: The texts of the messages.
        template_parts: The text that the template adds before, between and after them.
        rendered: The chat.

    Raises:
        InputError: if the template changes a message in another way.
    """
    spans, end = [], 0
    for number, content in enumerate(contents):
        start = end + len(template_parts[number]) if number < len(template_parts) else 0
        suffix = template_parts[number + 1] if number + 1 < len(template_parts) else None
        ends = [start + len(text) for text in (content, content.strip()) if rendered.startswith(text, start)]
        ends = [candidate for candidate in ends if suffix is not None and rendered.startswith(suffix, candidate)]
        if not ends:
            raise InputError(
                f"The chat template rewrites the message {content[:40]!r}, so its words cannot be located; "
                "render the chat yourself and pass a string."
            )
        end = ends[0]
        spans.append((start, end))
    return spans


def append_continuation(
    prompt: TextSample, ids: Int[Tensor, " m"], text: str, spans: Int[Tensor, "m 2"], text_model: TextModel
) -> TextSample:
    """A prompt and its continuation, joined as token ids.

    They are not tokenized together, because tokens could merge across the boundary.
    """
    all_ids = torch.cat([prompt.rows.fields["input_ids"][0], ids])
    check_length(len(all_ids), text_model.limit, "prompt and continuation together must fit; shorten one of them")
    mask = prompt.rows.fields["attention_mask"]
    mask = torch.cat([mask, mask.new_ones(1, len(ids))], dim=1)
    return TextSample(
        rows_of({}, all_ids, (), prompt.rows.padding).replace(attention_mask=mask),
        (*prompt.texts, text),
        (prompt.raw if isinstance(prompt.raw, str) else " ".join(prompt.raw), text),
        None if prompt.spans is None else torch.cat([prompt.spans, spans]),
        prompt.no_spans,
        torch.cat([prompt.text_index, torch.full_like(ids, len(prompt.texts))]),
        (*prompt.tokens, *text_model.tokenizer.convert_ids_to_tokens(ids.tolist())),
        generated=len(ids),
        roles=(*prompt.roles, "assistant") if prompt.roles else (),
    )
