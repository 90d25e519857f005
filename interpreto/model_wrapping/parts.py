"""The parts that a task chooses for its inference wrapper: a reader of inputs, a resolver of targets and an engine."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.rows import DeduplicatedRows, Rows
from interpreto.model_wrapping.runtime import device_of, why_no_hooks
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import SavedTarget, saved_by_name, several, without_tensors
from interpreto.typing import Modality


class InputReader(ABC):
    """Turns what the user passes as inputs into samples."""

    modality: ClassVar[Modality]
    spatial: ClassVar[bool] = False
    """Whether samples are images, whose positions have a height and a width."""
    ragged: ClassVar[bool]
    """Whether samples differ in length, so that batches are cheaper among samples of similar length."""

    @abstractmethod
    def is_single(self, inputs: Any) -> bool:
        """Whether the inputs are one sample rather than several."""

    @abstractmethod
    def split(self, inputs: Any) -> Iterator[Any]:
        """The samples one by one, in the user's form.

        Raises:
            InputError: if one of them is not a sample of this modality.
        """

    def from_saved(self, raw: Any) -> Any:
        """The sample that a user would pass for the raw input of a saved result."""
        return raw

    @abstractmethod
    def prepare_one(self, raw: Any) -> Sample:
        """Prepare a sample for the model.

        Raises:
            InputError: if it cannot be read.
        """

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        """Prepare samples for the model; readers that process several at once override this.

        Raises:
            InputError: if one of them cannot be read.
        """
        return [self.prepare_one(raw) for raw in raws]


class TargetResolver(ABC):
    """Turns what the user passes as targets into the outputs that are explained."""

    generated: ClassVar[bool] = False
    """Whether targets are tokens that continue the sample."""

    def normalize(self, targets: Any, count: int | None = None) -> Any:
        """Targets without tensors and arrays: a list has one entry per sample, anything else serves every sample.

        Args:
            targets: The user's targets.
            count: Number of samples, if known.

        Raises:
            TargetError: if the targets can be read in two ways.
        """
        given = without_tensors(targets)
        # A single row of an array serves every sample; it is checked as a list of targets is.
        is_row = isinstance(given, tuple) and not isinstance(targets, tuple)
        return several(list(given)) if is_row else given

    @abstractmethod
    def check(self, spec: Any, sample: Sample | None = None) -> None:
        """Check a target before the model runs, as far as that is possible with or without its sample.

        Raises:
            TargetError: if the model has no such target.
        """

    def prefetch(self, specs: Sequence[Any]) -> PlanRun[None]:
        """Run what the targets of several samples have in common, such as the features of prompts, once for all."""
        yield from ()

    def from_saved(self, values: tuple[Any, ...], names: tuple[str, ...]) -> Any:
        """The targets that a user would pass for those of a saved result.

        Raises:
            InputError: if only their names were saved.
        """
        if any(isinstance(value, SavedTarget | str) for value in values):
            raise saved_by_name(names)
        return values

    @abstractmethod
    def resolve(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        """Run the unperturbed sample and find what is explained.

        Args:
            sample: The sample; a prompt without its continuation.
            spec: One sample's targets, normalized.
            seed: Start of the randomness of generation.
            capture: Internals to capture in that run.

        Raises:
            ModelError: if the score of a target is not finite.
            TargetError: if the model has no such target.
        """

    def encoded(self, spec: Any) -> PlanRun[Any]:
        """Targets that can be known without a run of a sample.

        Raises:
            UnsupportedError: if targets of this kind cannot.
        """
        yield from ()
        raise UnsupportedError(f"The target {spec!r} depends on the outputs for a sample.")

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 *k"]) -> tuple[float | None, ...] | None:
        """The model's probability of each target, None for targets that are not classes; None if there are none."""
        return None

    def clear(self) -> None:
        """Drop what was computed with weights that may change between two calls."""
        return


class Engine(ABC):
    """Runs a model."""

    module: nn.Module | None = None
    """The PyTorch module; None for functions."""
    may_read_padding: bool = False
    """Whether padding may change scores, which is then tested by running the model."""
    gradient_obstacle: str = ""
    """Why there are no gradients for the input, as a sentence; empty if there are."""
    attention_obstacle: str = ""
    """Why attention cannot be captured, as a sentence; empty if it can."""
    activation_obstacle: str = ""
    """Why activations of a layer cannot be captured, as a sentence; empty if they can."""

    @property
    def hook_obstacle(self) -> str:
        """Why modules of the model cannot be hooked, as a sentence; empty if they can."""
        return "" if self.module is None else why_no_hooks(self.module)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return torch.device("cpu") if self.module is None else device_of(self.module)

    def part_of(self, rows: Rows) -> Hashable:
        """The part of the model that runs these rows, if different rows run different parts."""
        return None

    @abstractmethod
    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of requests that share a batch key as one batch."""

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        """The rows of a request in the order that suits the model best, equal ones once; None to run them as given."""
        return None

    def notes(self) -> dict[str, Any]:
        """What the record of a result should say of how the model was run, beyond `provenance`."""
        return {}

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Model id, dtype and device, for the record of a result."""
