"""An inference wrapper: a model and its processor behind one interface, whatever the task and modality."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import nn

from interpreto.errors import ModelError
from interpreto.model_wrapping import reading
from interpreto.model_wrapping.dual_encoders.base import DualEncoder
from interpreto.model_wrapping.execution.model_pool import Lease, ModelPool
from interpreto.model_wrapping.execution.thread_state import restored_thread_state
from interpreto.model_wrapping.parts import Engine, InputReader, TargetResolver
from interpreto.model_wrapping.reading import TargetedSample
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.tokens import TokenSpace
from interpreto.type_guards import function_name
from interpreto.typing import Modality


@dataclass(frozen=True, eq=False)
class WrapperParts:
    """What a task chooses for a model.

    Attributes:
        task: Name of the task, as transformers names its pipelines.
        inputs: Reads the user's inputs.
        targets: Resolves the user's targets.
        engine: Runs the model.
        processor: The processor or tokenizer.
        tokens: The tokens that a text model reads; None for other models.
        dual_encoder: The two towers of a model that compares images with texts; None for other models.
        runtime: Options of running the model, with the defaults of the task; None for functions.
    """

    task: str
    inputs: InputReader
    targets: TargetResolver
    engine: Engine
    processor: Any = None
    tokens: TokenSpace | None = None
    dual_encoder: DualEncoder | None = None
    runtime: Runtime | None = None


Build = Callable[[nn.Module, Any, Runtime], WrapperParts]
"""From a model, its processor and options of running it to the parts that its task chooses.

A build raises a `ModelError` if the processor is missing or does not fit the model.
"""


@final
class InferenceWrapper:
    """A model and its processor: a choice of what reads inputs, resolves targets and runs the model.

    It has the attributes of its parts.

    Args:
        parts: The chosen parts.
        build: Chooses the parts for a working copy of the model; None for functions.
    """

    def __init__(self, parts: WrapperParts, build: Build | None = None) -> None:
        self.task, self.inputs, self.targets, self.engine = parts.task, parts.inputs, parts.targets, parts.engine
        self.runtime, self.processor = parts.runtime, parts.processor
        self.tokens, self.dual_encoder = parts.tokens, parts.dual_encoder
        self._pool: ModelPool | None = None
        module, runtime = parts.engine.module, parts.runtime
        if module is not None and build is not None and runtime is not None:
            self._pool = ModelPool(module, partial(_rebuild, build, parts.processor, runtime), runtime.device)

    @staticmethod
    def create(build: Build, model: nn.Module, processor: object, runtime: Runtime) -> "InferenceWrapper":
        """Wrap a model.

        Raises:
            ModelError: if the processor is missing or does not fit the model.
        """
        return InferenceWrapper(build(model, processor, runtime), build)

    @property
    def modality(self) -> Modality:
        """What units of a sample are made of."""
        return self.inputs.modality

    @property
    def require_tokens(self) -> TokenSpace:
        """The tokens that the model reads.

        Raises:
            ModelError: if it reads none.
        """
        if self.tokens is None:
            raise ModelError(f"This model for {self.task} reads no tokens.")
        return self.tokens

    @property
    def explained_score(self) -> str | None:
        """The score of the outputs that is explained; None for functions, which return it themselves."""
        if self.runtime is None:
            return None
        mode = self.runtime.mode
        return mode if isinstance(mode, str) else function_name(mode)

    def read(self, inputs: object, targets: object, keep_errors: bool = False) -> list[TargetedSample]:
        """Each sample with its targets; see `reading.read`."""
        return reading.read(self.inputs, self.targets, inputs, targets, keep_errors)

    def read_stream(self, inputs: object, targets: object, keep_errors: bool = False) -> Iterator[TargetedSample]:
        """Each sample of an iterator with its targets, as they are needed; see `reading.read_stream`."""
        return reading.read_stream(self.inputs, self.targets, inputs, targets, keep_errors)

    def prepare(self, items: Sequence[TargetedSample]) -> list[TargetedSample]:
        """The same with prepared samples, or the error that prevents it."""
        return reading.prepare(self.inputs, items)

    @contextmanager
    def lease(self, seed: int = 0) -> Iterator[Lease["InferenceWrapper"]]:
        """A wrapper on a working copy for one call: the user's model and this thread stay as they are.

        Args:
            seed: Start of the randomness of a model that draws random numbers in its forward.
        """
        with restored_thread_state(), torch.inference_mode(False), torch.no_grad():
            if self._pool is None:
                yield Lease(self)
                return
            with self._pool.lease(seed) as lease:
                lease.wrapper.targets.clear()
                yield lease


def _rebuild(build: Build, processor: object, runtime: Runtime, module: nn.Module) -> InferenceWrapper:
    return InferenceWrapper.create(build, module, processor, runtime)
