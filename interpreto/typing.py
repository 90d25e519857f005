"""Shape annotations that the package shares, and protocols of third-party objects that it accepts.

Axis letters of all annotations:

| letter | axis |
|---|---|
| `n` | samples: texts or images of the user |
| `g`, `h w` | units that get a score: tokens, words, sentences; pixels, patches (images) |
| `l`, `H W` | positions that the model reads: token positions, pixels |
| `t` | targets, the outputs that are explained |
| `p` | perturbations (rows), changed copies of a sample |
| `b` | baselines |
| `d`, `c` | embedding width, channels |
| `*s` | the axes of the input tensor: `l d` or `c H W` |
| `k` | outputs of the model, such as classes |

A letter with an underscore, such as `_p`, has a size of its own. Masks are 1 where a unit is changed and 0 where it is
unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

# jaxtyping checks these when tests run: an axis letter has one size within a call. `*g` is one axis or two.
Scores = Float[Tensor, "p t"]
"""Scores of the targets for each row."""

UnitScores = Float[Tensor, "t *g"]
"""One score per target and unit."""

MaskedShare = Float[Tensor, "p *g"]
"""The share of each unit that is masked in a row, from 0 to 1."""

Modality = Literal["text", "image"]
"""The kind of data that units are parts of."""

RawInput = str | tuple[str, str] | Image.Image
"""A sample as the user sees it: a text, a pair of texts, or an image."""

OnError = Literal["raise", "record"]
"""Whether the error of a sample is raised, or recorded in its result."""

Size = tuple[int, int]
"""Height and width."""

TorchFunction = Callable[..., Any]
"""A function of PyTorch, as a function mode receives it."""

BYTES = bytes | bytearray | memoryview
"""Types that hold the bytes of a file."""


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a transformers tokenizer that this package uses."""

    is_fast: bool
    model_input_names: list[str]

    def __call__(self, text: object, text_pair: object = None, **options: object) -> Mapping[str, Any]: ...

    def convert_ids_to_tokens(self, ids: object) -> Any: ...

    def decode(self, token_ids: object, **options: object) -> Any: ...


@runtime_checkable
class AttributionResult(Protocol):
    """The fields of a result that files, figures and pages read; see `interpreto.AttributionOutput`."""

    # Properties, because a protocol with plain attributes would not accept a frozen dataclass.
    @property
    def attributions(self) -> Float[Tensor, "t *g"]: ...

    @property
    def elements(self) -> list[str] | Float[Tensor, "u 4"]: ...

    @property
    def targets(self) -> tuple[Any, ...]: ...

    @property
    def target_names(self) -> tuple[str, ...]: ...

    @property
    def scores(self) -> Float[Tensor, " t"]: ...

    @property
    def task(self) -> str: ...

    @property
    def modality(self) -> Modality: ...

    @property
    def is_image(self) -> bool: ...

    @property
    def is_generation(self) -> bool: ...

    def require_image(self) -> Image.Image: ...

    def require_boxes(self) -> Float[Tensor, "u 4"]: ...

    @property
    def prompt(self) -> str: ...

    @property
    def granularity(self) -> str: ...

    @property
    def raw_input(self) -> RawInput: ...

    @property
    def standard_errors(self) -> Float[Tensor, "t *g"] | None: ...

    @property
    def completeness_gap(self) -> Float[Tensor, " t"] | None: ...

    @property
    def segments(self) -> Int[Tensor, "t H W"] | None: ...

    @property
    def unit_map(self) -> Int[Tensor, "H W"] | None: ...

    @property
    def target_units(self) -> Bool[Tensor, "t *g"] | None: ...

    @property
    def n_evaluations(self) -> int: ...

    @property
    def info(self) -> dict[str, Any]: ...

    @property
    def error(self) -> str | None: ...

    @property
    def ranking_scores(self) -> Float[Tensor, "t *g"]: ...

    def heatmap(self, size: tuple[int, int] | None = None, interpolation: str = "bilinear") -> Float[Tensor, "t H W"]:
        """The attributions as heatmaps over the raw image."""
        ...

    def top_mask(self, percent: float = 30.0) -> Bool[Tensor, "t H W"]:
        """A mask of the part of the raw image with the highest attributions."""
        ...
