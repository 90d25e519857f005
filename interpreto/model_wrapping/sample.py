"""One sample of the user, prepared: what the model reads, and what a person sees."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from interpreto.model_wrapping.rows import Rows

EMBEDDINGS = "embeddings"
"""The field of rows that replaces the model's own token embeddings."""
PIXELS = "pixel_values"
"""The field of rows that has an image's pixel values."""


@dataclass(frozen=True)
class Truncation:
    """What is left of texts that have more tokens than the model reads.

    Attributes:
        kept: How many of the texts' own tokens are read.
        total: How many they have.
        side: Where tokens were cut away, "left" or "right".
        read: First and last character, the last one excluded, of what is read of each text.
    """

    kept: int
    total: int
    side: str
    read: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        if len(self.read) > 1:
            return f"{self.kept} of {self.total} tokens"
        return f"{'last' if self.side == 'left' else 'first'} {self.kept} of {self.total} tokens"


@dataclass(frozen=True, eq=False)
class TextSample:
    """A tokenised text or pair of texts.

    Attributes:
        rows: The model's inputs, one row, without padding.
        texts: The text, or both texts of a pair, as the user wrote them.
        raw: What the user gave, for display: a string or a tuple of two.
        spans: Where each token lies in its text, in characters; None where that cannot be known.
        no_spans: Why that cannot be known, as a clause; empty where it is.
        sequence: Which text a token belongs to; -1 for tokens that the tokenizer added.
        tokens: The tokens' own names.
        generated: How many of the tokens, the last ones, follow the prompt of a language model.
        roles: Who says each of the texts, for the messages of a chat; empty for other texts.
        truncation: What was cut away of texts that are too long for the model; None where nothing was.
    """

    rows: Rows
    texts: tuple[str, ...]
    raw: str | tuple[str, str]
    spans: Int[Tensor, "l 2"] | None
    no_spans: str
    sequence: Int[Tensor, " l"]
    tokens: tuple[str, ...]
    generated: int = 0
    truncation: Truncation | None = None
    roles: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[tuple[int, int], ...]:
        """First and last character, the last one excluded, of what is read of each text."""
        return self.truncation.read if self.truncation else tuple((0, len(text)) for text in self.texts)


@dataclass(frozen=True, eq=False)
class ImageSample:
    """A preprocessed image.

    Attributes:
        rows: The model's inputs, one row.
        raw: The picture for display, RGB.
        size: Height and width that the model reads, in its own pixels.
        crop_box: Left, top, right and bottom of what the model sees, in pixels of the raw picture; it may lie partly
            outside where the processor pads.
        patch: Height and width of the model's patches in its own pixels, None where it has none.
        black_white: What the model reads where the picture is black, and where it is white, per channel.
    """

    rows: Rows
    raw: Image.Image
    size: tuple[int, int]
    crop_box: tuple[float, float, float, float]
    patch: tuple[int, int] | None
    black_white: tuple[Float[Tensor, " c"], Float[Tensor, " c"]]


Sample = TextSample | ImageSample
