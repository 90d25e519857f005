"""The seam between the pipeline and a model: one inference wrapper per (task, modality)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from interpreto.model_wrapping.conversation import Answer, Ask, Plan, Targets
from interpreto.model_wrapping.sample import Sample


class Wrapper(ABC):
    """A model and its processor behind the few questions that the pipeline asks."""

    task: ClassVar[str]
    modality: ClassVar[str]
    ragged: ClassVar[bool]
    """Whether samples differ in length, so that it pays to run samples of like length together."""
    no_gradients: str
    """Why gradients cannot be asked for, as a sentence; empty where they can."""

    @abstractmethod
    def is_one(self, inputs: Any) -> bool:
        """Whether the user gave one sample rather than several."""

    @abstractmethod
    def split(self, inputs: Any) -> Iterator[Any]:
        """The samples one by one, as the user gave them."""

    @abstractmethod
    def prepare(self, raw: Any) -> Sample:
        """What the model reads of one sample, and what a person sees of it."""

    @abstractmethod
    def check_target(self, spec: Any) -> None:
        """Refuse a target before the model runs, as far as that can be known then."""

    @abstractmethod
    def find_targets(self, sample: Sample, spec: Any) -> Plan[tuple[Targets, Float[Tensor, " t"]]]:
        """What is explained, its names in `targets.names`, and its scores on the unchanged sample."""

    @abstractmethod
    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Run the rows of asks of one kind as one batch."""

    @abstractmethod
    def borrowed(self) -> AbstractContextManager[None]:
        """Hold the model ready; afterwards it is as it was."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Model id, dtype and device, for the record."""
