"""The abstract base classes from which a task composes its inference wrapper: input reader, target resolver, engine."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import DeduplicatedRows, Rows
from interpreto.model_wrapping.runtime import device_of, hook_obstacle_of
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import SavedTarget, as_target_tuple, saved_by_name_error, to_python
from interpreto.typing import Modality


class InputReader(ABC):
    """Converts the inputs that the user passes to samples."""

    modality: ClassVar[Modality]
    spatial: ClassVar[bool] = False
    """Whether samples are images, whose positions have a height and a width."""
    ragged: ClassVar[bool]
    """Whether samples have sequences of variable length, and are batched with others of similar length."""

    @abstractmethod
    def is_single(self, inputs: object) -> bool:
        """Whether the inputs are a single sample instead of several."""

    @abstractmethod
    def split(self, inputs: object) -> Iterator[Any]:
        """Iterate over the samples in the form in which the user passes them.

        Raises:
            InputError: if one is not a sample of this modality.
        """

    def from_saved(self, raw: object) -> Any:
        """Convert the raw input of a saved result to the form in which the user passes samples."""
        return raw

    @abstractmethod
    def prepare_one(self, raw: object) -> Sample:
        """Prepare a sample for the model.

        Raises:
            InputError: if it cannot be read.
        """

    def prepare(self, raws: Sequence[object]) -> list[Sample]:
        """Prepare samples for the model; readers that process several at once override this.

        Raises:
            InputError: if one of them cannot be read.
        """
        return [self.prepare_one(raw) for raw in raws]


class TargetResolver(ABC):
    """Converts the targets that the user passes to scores of the model that can be explained."""

    generated: ClassVar[bool] = False
    """Whether targets are generated tokens, which continue the sample."""

    def normalize(self, targets: object, count: int | None = None) -> Any:
        """Convert tensors and arrays in targets to Python objects.

        In the result a list has one entry per sample; anything else applies to every sample.

        Args:
            targets: The user's targets.
            count: Number of samples, if known.

        Raises:
            TargetError: if the targets are ambiguous.
        """
        converted = to_python(targets)
        # An array with a single row contains the targets of every sample, and may be an ambiguous multi-hot row.
        is_row = isinstance(converted, tuple) and not isinstance(targets, tuple)
        return as_target_tuple(list(converted)) if is_row else converted

    @abstractmethod
    def check(self, spec: object) -> None:
        """Validate a target before samples are prepared, as far as possible without the outputs of the model.

        Args:
            spec: One sample's targets, normalized.

        Raises:
            TargetError: if the model has no such target.
        """

    def check_with_sample(self, spec: object, sample: Sample) -> None:
        """Validate a target together with its prepared sample, before the model runs.

        Raises:
            TargetError: if they do not fit each other.
        """
        return

    def prefetch(self, specs: Sequence[object]) -> PlanRun[None]:
        """Compute once what the targets of several samples share, such as the text embeddings of a dual encoder."""
        yield from ()

    def from_saved(self, values: tuple[object, ...], names: tuple[str, ...]) -> Any:
        """Convert the targets of a saved result to the form in which the user passes targets.

        Raises:
            InputError: if only their names were saved.
        """
        if any(isinstance(value, SavedTarget | str) for value in values):
            raise saved_by_name_error(names)
        return values

    @abstractmethod
    def resolve(
        self, sample: Sample, spec: object, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        """Evaluate the unperturbed sample, and resolve its targets.

        Args:
            sample: The sample; a prompt without its continuation.
            spec: One sample's targets, normalized.
            seed: The random seed for generation.
            capture: Internals to capture in the same forward pass.

        Raises:
            ModelError: if the score of a target is not finite.
            TargetError: if the model has no such target.
        """

    def known_targets(self, spec: object) -> PlanRun[Any]:
        """Resolve targets that do not depend on the model's outputs for a sample; None if they do."""
        yield from ()
        return None

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 *k"]) -> tuple[float | None, ...] | None:
        """The probability of each target, None for those without one; None if no target can have a probability."""
        return None

    def clear(self) -> None:
        """Clear caches that depend on the model's weights, which may change between two calls."""
        return


class Engine(ABC):
    """Runs the model on batches of rows."""

    module: nn.Module | None = None
    """The PyTorch module; None if the model is a function."""
    may_read_padding: bool = False
    """Whether padding may change scores; if so, this is tested by running the model with and without padding."""
    gradient_obstacle: str = ""
    """Why gradients with respect to the input are not available, as a sentence; empty if they are."""
    attention_obstacle: str = ""
    """Why attention cannot be captured, as a sentence; empty if it can."""
    activation_obstacle: str = ""
    """Why activations of a layer cannot be captured, as a sentence; empty if they can."""

    @property
    def hook_obstacle(self) -> str:
        """Why modules of the model cannot be hooked, as a sentence; empty if they can."""
        return "" if self.module is None else hook_obstacle_of(self.module)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return torch.device("cpu") if self.module is None else device_of(self.module)

    def part_of(self, rows: Rows) -> Hashable:
        """Identifies the submodule that these rows run through, such as one encoder of a dual encoder."""
        return None

    @abstractmethod
    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests that share a batch key as one batch."""

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        """The unique rows of a request, in the order that is most efficient; None to run all rows in their order."""
        return None

    def notes(self) -> dict[str, Any]:
        """How the model was run, beyond `provenance`, for the `info` of a result."""
        return {}

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Model id, dtype and device, for the `info` of a result."""
