"""Functions from texts to scores as models: scikit-learn pipelines, rules, remote services."""

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
from interpreto.model_wrapping.parts import Engine, InputReader
from interpreto.model_wrapping.sample import EMBEDDINGS, TextSample
from interpreto.model_wrapping.tasks.score_function import CheckedScores

_UNLIMITED = 10**9


class _OpenVocabulary(dict[str, int]):
    """Pieces of texts and their ids; a piece that is not known yet gets the next one.

    Attributes:
        pieces: The pieces by their ids.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._lock = threading.Lock()

    def __missing__(self, piece: str) -> int:
        with self._lock:
            # Another thread may have added it meanwhile.
            if piece not in self.keys():
                self.pieces.append(piece)
                self[piece] = len(self.pieces) - 1
        return self[piece]

    def __contains__(self, piece: object) -> bool:
        return isinstance(piece, str)


@final
class WordTokenizer:
    """Words, punctuation and white space of texts as tokens, with the interface of a tokenizer.

    The tokens of a text, joined, are the text.
    """

    is_fast = False
    bos_token_id = eos_token_id = cls_token_id = sep_token_id = pad_token_id = mask_token_id = unk_token_id = None
    unk_token = None
    all_special_ids: Sequence[int] = ()
    model_input_names = ("input_ids",)
    model_max_length = _UNLIMITED

    def __init__(self) -> None:
        self._ids = _OpenVocabulary()

    def __call__(self, text: str, text_pair: Any = None, **options: Any) -> Mapping[str, Any]:
        return {"input_ids": [self._ids[piece] for piece in WordBreaker(text, "root")]}

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The pieces of ids."""
        pieces = self._ids.pieces
        return pieces[ids] if isinstance(ids, int) else [pieces[token] for token in ids]

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """The text of ids."""
        return "".join(self.convert_ids_to_tokens(list(token_ids)))

    def get_vocab(self) -> Mapping[str, int]:
        """The pieces and their ids: every text is one, with what is meant to stand in for a word among them."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)


def text_function_tokens() -> TextModel:
    """The tokens that functions of texts read: words, of an open vocabulary."""
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
        "a function of texts has none; from_callables(gradients=) is for functions of images.",
        # There is no table of embeddings.
        table=nn.Identity(),
    )


@final
@dataclass(frozen=True, eq=False)
class FunctionTextReader(InputReader):
    """Reads texts for a function of strings.

    Attributes:
        text: The words that texts are split into.
    """

    modality = "text"
    ragged = True

    text: TextModel

    def is_single(self, inputs: Any) -> bool:
        return is_one_text(inputs)

    def split(self, inputs: Any) -> Iterator[Raw]:
        return split_texts(inputs)

    def prepare_one(self, raw: Raw) -> TextSample:
        if not isinstance(raw, str):
            raise InputError(
                f"The function of from_callables(texts=True) reads strings; got a {type(raw).__name__} as one text. "
                "For pairs, join them into one string, and let the function split it."
            )
        check_text((raw,))
        tokenizer = self.text.tokenizer
        ids = torch.tensor(tokenizer(raw)["input_ids"])
        pieces = tokenizer.convert_ids_to_tokens(ids.tolist())
        bounds = torch.tensor(list(accumulate(map(len, pieces), initial=0)))
        spans = torch.stack([bounds[:-1], bounds[1:]], dim=1)
        # White space between words is never masked.
        sequence = torch.tensor([-1 if piece.isspace() else 0 for piece in pieces])
        return TextSample(rows_of({}, ids, (), self.text.padding), (raw,), raw, spans, "", sequence, tuple(pieces))


@final
class TextFunctionEngine(Engine):
    """Runs a function of a list of texts.

    Args:
        scores: From texts to scores.
        text: The words that texts are split into.
    """

    attention_obstacle = activation_obstacle = "the internals of the functions of from_callables are not known."

    def __init__(self, scores: CheckedScores, text: TextModel) -> None:
        self.scores, self.text, self.gradient_obstacle = scores, text, text.gradient_obstacle

    def provenance(self) -> dict[str, Any]:
        return self.scores.provenance()

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        rows = [row for request in requests for row in request.rows.fields["input_ids"].tolist()]
        texts = [self.text.tokenizer.decode([token for token in row if token != UNSET]) for row in rows]
        parts: Sequence[Float[Tensor, "_p k"]] = self.scores(texts, len(texts)).split(
            [len(request.rows) for request in requests]
        )
        return [
            ModelResponse(request.targets.select(part), outputs=part if request.return_outputs else None)
            for request, part in zip(requests, parts, strict=True)
        ]
