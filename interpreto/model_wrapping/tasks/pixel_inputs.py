"""Pixel values as a model expects them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interpreto.model_wrapping.execution.precision import precision
from interpreto.model_wrapping.inputs.image_size import Resolution
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of
from interpreto.model_wrapping.sample import PIXELS


@contextmanager
def pixels_of(
    rows: Rows, module: nn.Module, runtime: Runtime, resolution: Resolution
) -> Iterator[tuple[Float[Tensor, "p ..."], Mapping[str, Any]]]:
    """The pixel values of rows, and further arguments of the model's forward, in the precision and size of the run."""
    # A copy: some models change their inputs in place.
    pixels = rows.fields[PIXELS].to(*placement_of(module), copy=True)
    with precision(module, runtime.autocast, pixels.device), resolution.applied() as options:
        yield pixels, options
