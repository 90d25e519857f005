"""What perturbations need to know of the tokens of a text model."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class TokenSpace(Protocol):
    """The tokens that a text model reads, and their embeddings."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Tokens by which the model finds where a text begins and ends; no token may be replaced by one of them."""
        ...

    @property
    def takes_attention_mask(self) -> bool:
        """Whether the model takes an attention mask."""
        ...

    @property
    def attention_hides_tokens(self) -> bool:
        """Whether a 0 in the attention mask hides a token from all others and moves none of them."""
        ...

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens that the model has embeddings of; None if it has no table."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        ...

    def embed(self, ids: Int[Tensor, "*l"]) -> Float[Tensor, "*l d"]:
        """The model's embeddings of tokens, in float32."""
        ...

    def reads_as_padding(self, token: int) -> bool:
        """Whether the model would take this token for padding, or for the end of a text."""
        ...

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise an `InputError` for ids that the tokenizer or the model does not have."""
        ...
