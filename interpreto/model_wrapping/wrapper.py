"""The seam between the pipeline and a model: one inference wrapper per (task, modality)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import InputError
from interpreto.model_wrapping.arrangement import DeduplicatedRows
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.model_pool import Lease, ModelPool
from interpreto.model_wrapping.execution.thread_state import restored_thread_state
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, NamedTargets, PlanRun, ResolvedSample
from interpreto.model_wrapping.runtime import Runtime, device_of
from interpreto.model_wrapping.sample import Sample
from interpreto.model_wrapping.targets import several, without_tensors
from interpreto.model_wrapping.tasks.detection import why_no_hooks
from interpreto.option_kinds import short_repr


def check_not_a_table(inputs: Any) -> None:
    """Refuse what cannot be iterated though it looks like it, and a data frame, which gives the names of its columns.

    Raises:
        InputError: if it is one.
    """
    if isinstance(inputs, np.ndarray | Tensor) and not inputs.ndim:
        raise InputError(f"An array without axes, {short_repr(inputs)}, is no list of samples: give what it holds.")
    columns = getattr(inputs, "columns", None)
    if columns is not None and getattr(inputs, "iloc", None) is not None:
        names = [str(name) for name in columns]
        first = names[0] if names else "text"
        raise InputError(
            f"A table of the columns {', '.join(map(repr, names[:20]))} is not a list of samples: give one of its "
            f"columns, such as df[{first!r}]."
        )


class InferenceWrapper(ABC):
    """A model and its processor behind the few questions that the pipeline asks."""

    task: ClassVar[str]
    modality: ClassVar[str]
    ragged: ClassVar[bool]
    """Whether samples differ in length, so that it pays to run samples of like length together."""
    no_gradients: str
    """Why gradients cannot be asked for, as a sentence; empty where they can."""
    no_attention: str
    """Why attention cannot be asked for, as a sentence; empty where it can."""
    no_features: str = ""
    """Why features of a layer cannot be asked for, as a sentence; empty where they can."""

    processor: Any = None
    """What prepares samples."""
    runtime: Runtime
    """How the model is run."""
    pool: ModelPool | None = None
    """Working copies of the model; None where there is no model of PyTorch."""

    may_read_padding: ClassVar[bool] = False
    """Whether what is padded may score otherwise than alone, which is found out by running it."""

    mean_readout: ClassVar[bool] = False
    """Whether what layers before the last one say of a target is told by the mean over their positions."""

    @property
    def empty_prompt(self) -> str:
        """A prompt that names nothing, where a model's maps are corrected by that of such a prompt; else empty."""
        return ""

    @property
    def module(self) -> nn.Module | None:
        """The model itself; None where it is not one of PyTorch."""
        return None

    @property
    def no_hooks(self) -> str:
        """Why modules of the model cannot be watched while they run, as a sentence; empty where they can."""
        return "" if self.module is None else why_no_hooks(self.module)

    @property
    def device(self) -> torch.device:
        """Where the model runs at present."""
        return torch.device("cpu") if self.module is None else device_of(self.module)

    @abstractmethod
    def is_one(self, inputs: Any) -> bool:
        """Whether the user gave one sample rather than several."""

    @abstractmethod
    def split(self, inputs: Any) -> Iterator[Any]:
        """The samples one by one, as the user gave them."""

    @abstractmethod
    def prepare(self, raw: Any) -> Sample:
        """What the model reads of one sample, and what a person sees of it."""

    def prepare_all(self, raws: Sequence[Any]) -> list[Sample]:
        """Several samples prepared; wrappers for which it is faster prepare them together."""
        return [self.prepare(raw) for raw in raws]

    def normalize_targets(self, targets: Any, count: int | None = None) -> Any:
        """The user's targets without tensors and arrays: a list has one entry per sample, all else serves every one.

        Args:
            targets: What the user said.
            count: How many samples there are, where that is known.

        Raises:
            TargetError: if it can be read in two ways.
        """
        given = without_tensors(targets)
        # A single row of an array serves every sample; it is checked as a list of targets is.
        is_row = isinstance(given, tuple) and not isinstance(targets, tuple)
        return several(list(given)) if is_row else given

    @abstractmethod
    def check_target(self, spec: Any, sample: Sample | None = None) -> None:
        """Refuse a target before the model runs, as far as that can be known then, with or without its sample."""

    @abstractmethod
    def resolve_targets(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        """Run the unchanged sample and settle what is explained; a probe sees that run."""

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        """The rows of an ask in the order that suits the model best, equal ones once; None leaves them as they are."""
        return None

    @abstractmethod
    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Run the rows of asks of one kind as one batch."""

    @contextmanager
    def lease(self, seed: int = 0) -> Iterator[Lease]:
        """A wrapper of the same kind that a call has for itself: the user's model and this thread stay as they are.

        Args:
            seed: Where the randomness of a model that draws in its forward starts.
        """
        with restored_thread_state(), torch.inference_mode(False), torch.no_grad():
            if self.pool is None:
                yield Lease(self, verified=True)
                return
            with self.pool.lease(seed) as lease:
                lease.wrapper.clear_encoded_targets()
                yield lease

    def notes(self) -> dict[str, Any]:
        """What the record of a result should say of how the model was run, beyond `provenance`."""
        return {}

    def clear_encoded_targets(self) -> None:
        """Forget what was computed with weights that the user may change between two calls."""
        return

    def _on(self, module: nn.Module) -> "InferenceWrapper":
        """The same for a copy of the model."""
        made: Any = type(self)
        return made(module, self.processor, self.runtime)

    @property
    def masked_by_attention(self) -> bool:
        """Whether the attention mask hides a token of a language model from all others and moves none of them."""
        return False

    @property
    def explained_score(self) -> str | None:
        """Which score of the outputs is explained; None for functions, which return it themselves."""
        mode = self.runtime.mode
        return mode if isinstance(mode, str) else getattr(mode, "__name__", type(mode).__name__)

    def probabilities(self, targets: NamedTargets, outputs: Float[Tensor, "1 *k"]) -> tuple[float | None, ...] | None:
        """How likely the model says each target is, None for targets that are no class; None where there are none."""
        return None

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Model id, dtype and device, for the record."""
