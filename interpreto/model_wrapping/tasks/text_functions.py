"""Functions of texts as models, such as scikit-learn pipelines, rules or remote services."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, final

import torch
from icu4py.breakers import WordBreaker
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import InputError
from interpreto.model_wrapping.execution.forward_arguments import ForwardArguments
from interpreto.model_wrapping.inputs.text import is_one_text, split_texts
from interpreto.model_wrapping.inputs.text_checks import check_text
from interpreto.model_wrapping.inputs.text_encoding import Raw, rows_of
from interpreto.model_wrapping.language.text_model import UNSET, TextModel
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.sample import EMBEDDINGS, TextSample
from interpreto.model_wrapping.tasks.score_function import CheckedScores, ScoreFunctionEngine

_UNLIMITED = 10**9


class _OpenVocabulary(dict[str, int]):
    """A vocabulary that assigns the next free id to each new token.

    Attributes:
        tokens: The token of each id.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self._lock = threading.Lock()

    def __missing__(self, token: str) -> int:
        with self._lock:
            # Another thread may have added it meanwhile.
            if token not in self.keys():
                self.tokens.append(token)
                self[token] = len(self.tokens) - 1
        return self[token]

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str)


@final
class WordTokenizer:
    """Splits texts into words, punctuation and white space, with the interface of a transformers tokenizer.

    Concatenating the tokens of a text restores the text.
    """

    is_fast = False
    bos_token_id = eos_token_id = cls_token_id = sep_token_id = pad_token_id = mask_token_id = unk_token_id = None
    unk_token = None
    all_special_ids: Sequence[int] = ()
    model_input_names = ("input_ids",)
    model_max_length = _UNLIMITED

    def __init__(self) -> None:
        self._ids = _OpenVocabulary()

    def __call__(self, text: str, text_pair: object = None, **options: object) -> Mapping[str, Any]:
        return {"input_ids": [self._ids[token] for token in WordBreaker(text, "root")]}

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The tokens of ids."""
        tokens = self._ids.tokens
        return tokens[ids] if isinstance(ids, int) else [tokens[token_id] for token_id in ids]

    def decode(self, token_ids: Sequence[int], **options: object) -> str:
        """Concatenate the tokens of ids."""
        return "".join(self.convert_ids_to_tokens(list(token_ids)))

    def get_vocab(self) -> Mapping[str, int]:
        """The vocabulary. It contains every string, so that any string can be a token for `removal`."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)


def text_function_tokens() -> TextModel:
    """The text interface of a function of texts: a word tokenizer without special tokens or embeddings."""
    words: Any = WordTokenizer()
    return TextModel(
        None,
        words,
        words,
        ForwardArguments(frozenset({"input_ids"}), ()),
        ("input_ids",),
        {"input_ids": UNSET, "attention_mask": 0, EMBEDDINGS: 0.0},
        _UNLIMITED,
        False,
        "functions of texts have none; gradients= of from_callables is for functions of images.",
        # Functions of texts have no embedding table.
        table=nn.Identity(),
    )


@final
@dataclass(frozen=True, eq=False)
class FunctionTextReader(InputReader):
    """Reads texts for the functions of `from_callables`.

    Attributes:
        text: The tokenizer and its properties.
    """

    modality = "text"
    ragged = True

    text: TextModel

    def is_single(self, inputs: object) -> bool:
        return is_one_text(inputs)

    def split(self, inputs: object) -> Iterator[Raw]:
        return split_texts(inputs)

    def prepare_one(self, raw: Raw) -> TextSample:
        text, tokenizer = _checked(raw), self.text.tokenizer
        ids = torch.tensor(tokenizer(text)["input_ids"])
        tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
        bounds = torch.tensor(list(accumulate(map(len, tokens), initial=0)))
        spans = torch.stack([bounds[:-1], bounds[1:]], dim=1)
        # White space has the value -1, as special tokens have, so that it is never masked.
        text_index = torch.tensor([-1 if token.isspace() else 0 for token in tokens])
        return TextSample(rows_of({}, ids, (), self.text.padding), (text,), text, spans, "", text_index, tuple(tokens))


def _checked(raw: Raw) -> str:
    """The text of a sample.

    Raises:
        InputError: if it is not one text, or has invalid characters.
    """
    if isinstance(raw, str):
        check_text((raw,))
        return raw
    raise InputError(
        f"The function of from_callables(texts=True) reads strings; got a {type(raw).__name__} as a sample. "
        "Join a pair into one string, and let the function split it."
    )


@final
class TextFunctionEngine(ScoreFunctionEngine):
    """Runs the score function of `from_callables` on texts.

    Args:
        scores: The score function.
        text: The tokenizer and its properties.
    """

    attention_obstacle = activation_obstacle = "the functions of from_callables do not provide internals."

    def __init__(self, scores: CheckedScores, text: TextModel) -> None:
        self.scores, self.text, self.gradient_obstacle = scores, text, text.gradient_obstacle

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        rows = [row for request in requests for row in request.rows.fields["input_ids"].tolist()]
        texts = [self.text.tokenizer.decode([token_id for token_id in row if token_id != UNSET]) for row in rows]
        parts: Sequence[Float[Tensor, "_p k"]] = self.scores(texts, len(texts)).split(
            [len(request.rows) for request in requests]
        )
        return [
            ModelResponse(request.targets.select(part), outputs=part if request.return_outputs else None)
            for request, part in zip(requests, parts, strict=True)
        ]
