"""A prepared sample: the inputs of the model, and what is displayed."""

from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from interpreto.model_wrapping.rows import Rows

EMBEDDINGS = "embeddings"
"""The field of `Rows` with token embeddings that replace the model's own."""
PIXELS = "pixel_values"
"""The field of `Rows` with pixel values."""


@dataclass(frozen=True)
class Truncation:
    """What remains of texts that were truncated.

    Attributes:
        kept: Number of tokens of the texts that are read.
        total: Number of tokens of the texts.
        side: Where tokens were removed, "left" or "right".
        read: Start and end of the part of each text that is read, in characters.
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
    """A tokenized text or pair of texts.

    Attributes:
        rows: The model's inputs, one row, without padding.
        texts: The text, or both texts of a pair, as the user wrote them.
        raw: The user's input for display: a string or a pair of strings.
        spans: Start and end of each token in its text, in characters; None if they are unknown.
        no_spans: Why spans are unknown, as a clause; empty if they are known.
        text_index: The text to which each token belongs; -1 for tokens that the tokenizer added.
        tokens: The strings of the tokens in the vocabulary.
        generated: Number of tokens, at the end, that follow the prompt of a language model.
        roles: The role of each text in a chat; empty for other texts.
        truncation: What remains of texts that are too long for the model; None if they are complete.
    """

    rows: Rows
    texts: tuple[str, ...]
    raw: str | tuple[str, str]
    spans: Int[Tensor, "l 2"] | None
    no_spans: str
    text_index: Int[Tensor, " l"]
    tokens: tuple[str, ...]
    generated: int = 0
    truncation: Truncation | None = None
    roles: tuple[str, ...] = ()

    @property
    def prompt(self) -> "TextSample":
        """The prompt that a language model continues, which is this sample itself."""
        return self

    def with_prompt(self, prompt: "TextSample") -> "TextSample":
        """Another prompt, such as this one with its continuation, with the fields of this sample that it lacks."""
        others = {name: tensor for name, tensor in self.rows.fields.items() if name not in prompt.rows.fields}
        return replace(prompt, rows=prompt.rows.replace(**others))

    @property
    def read(self) -> tuple[tuple[int, int], ...]:
        """Start and end of the part of each text that is read, in characters."""
        return self.truncation.read if self.truncation else tuple((0, len(text)) for text in self.texts)


@dataclass(frozen=True, eq=False)
class ImageSample:
    """A preprocessed image.

    Attributes:
        rows: The model's inputs, one row.
        raw: The image for display, RGB.
        size: Height and width of the pixel values.
        crop_box: Left, top, right and bottom of the part that the model reads, in pixels of the raw image; it may
            extend beyond the image if the processor pads.
        patch: Height and width of the model's patches, in pixels of the pixel values; None if it has no patches.
        black_white: The pixel values of black and of white, per channel.
        prompt: The text that the model reads with the image and continues; None for models of images alone, as all
            tasks of the package are at present.
    """

    rows: Rows
    raw: Image.Image
    size: tuple[int, int]
    crop_box: tuple[float, float, float, float]
    patch: tuple[int, int] | None
    black_white: tuple[Float[Tensor, " c"], Float[Tensor, " c"]]
    prompt: TextSample | None = None

    def with_prompt(self, prompt: TextSample) -> "ImageSample":
        """The same with another prompt, such as one with its continuation."""
        return replace(self, rows=self.rows.replace(**prompt.rows.fields), prompt=prompt)


Sample = TextSample | ImageSample
