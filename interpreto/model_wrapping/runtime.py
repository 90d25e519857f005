"""How a model is run: device, precision, and which score of its outputs is explained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interpreto.errors import OptionError
from interpreto.option_kinds import call_function
from interpreto.type_guards import as_pair, shape_or_type
from interpreto.typing import Size

InferenceMode = Literal["logits", "softmax", "log_softmax"]
TargetGranularity = Literal["sequence", "sentence", "clause", "part-sentence", "word", "token"]

INFERENCE_MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(-1),
    "log_softmax": lambda logits: logits.log_softmax(-1),
}
ModelOutput = str | int | Callable[[Any], Any] | None
"""Which part of a model's output are the logits: a key, an index, or a function."""
DEFAULT_MODE: InferenceMode = "logits"
"""The explained score if neither the user nor the task sets it."""


@dataclass(frozen=True)
class Runtime:
    """Options for running the model: device, precision, preprocessing, generation and explained score.

    Attributes:
        device: Where the model runs during a call; None leaves it where it is.
        autocast: A floating dtype such as `torch.bfloat16` to compute in; None for the model's own.
        inference_mode: A name in `INFERENCE_MODES` or a function from logits `p k` to scores `p k`; None for the
            default of the task.
        truncation: Whether texts longer than the model's limit are truncated; otherwise they are an error.
        generation_kwargs: For language models, arguments of `generate` in addition to the model's own config.
        prepend_bos: For language models, whether to prepend a beginning-of-sequence token if the tokenizer does not add
            one.
        target_granularity: For language models, how the tokens of a continuation are grouped into
            targets; "sequence" for one target.
        reuse_prefix: For language models, whether rows reuse the keys and values of the unperturbed text up to the
            first position that differs.
        image_size: Height and width of the images that the model reads, or one number for both; None for its own.
        model_output: For classifiers, which part of the model's output are the logits: a key, an index, or a function;
            None for a model that returns a tensor, or an output with "logits".
    """

    device: torch.device | str | None = None
    autocast: torch.dtype | None = None
    inference_mode: InferenceMode | Callable[[Tensor], Tensor] | None = None
    truncation: bool = False
    generation_kwargs: Mapping[str, Any] | None = None
    prepend_bos: bool = False
    target_granularity: TargetGranularity | None = None
    reuse_prefix: bool = True
    image_size: int | Size | None = None
    model_output: ModelOutput = None

    def __post_init__(self) -> None:
        mode = self.inference_mode
        if self.explains_sequence and mode not in (None, "logits", "log_softmax"):
            raise OptionError(
                f"target_granularity='sequence' explains the log-probability of the continuation and cannot be "
                f"combined with inference_mode={mode!r}: leave one of them out."
            )

    @property
    def size(self) -> Size | None:
        """Height and width of images, if the user has set them."""
        return None if self.image_size is None else as_pair(self.image_size)

    @property
    def explains_sequence(self) -> bool:
        """Whether the log-probability of the whole continuation is the only target."""
        return self.target_granularity == "sequence"

    @property
    def mode(self) -> InferenceMode | Callable[[Tensor], Tensor]:
        """Which score is explained."""
        return "log_softmax" if self.explains_sequence else self.inference_mode or DEFAULT_MODE

    def explained(self, logits: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """The explained scores of logits: `inference_mode` applied to them.

        Raises:
            OptionError: if a softmax is applied to a single output, or a function does not return one row of scores per
                row of logits.
        """
        mode = self.mode
        if isinstance(mode, str) and mode != "logits" and logits.shape[-1] == 1:
            raise OptionError(
                f"inference_mode={mode!r} is constant on a model with one output; use 'logits', or torch.sigmoid."
            )
        scores = call_function("inference_mode", mode, logits) if callable(mode) else INFERENCE_MODES[mode](logits)
        if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(logits):
            raise OptionError(
                f"inference_mode must map logits {tuple(logits.shape)} to scores (rows, outputs); it returned "
                f"{shape_or_type(scores)}. To explain one output, pass its index as targets=."
            )
        return scores


def unwrap_model(model: object) -> Any:
    """The model inside the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", model)
        if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = inner.module
        if inner is model:
            return model
        model = inner


def hook_obstacle_of(model: nn.Module) -> str:
    """Why hooks cannot be registered on modules of a model, as a sentence; empty if they can."""
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())
    return "modules of TorchScript do not support hooks: pass the original model." if scripted else ""


def unwrap_peft(model: object) -> Any:
    """Like `unwrap_model`, and also inside the wrapper of PEFT."""
    inner = unwrap_model(model)
    base = getattr(inner, "get_base_model", None)
    return base() if callable(base) else inner


def device_of(model: nn.Module) -> torch.device:
    """The device on which a model expects its inputs."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return _execution_device(model) if device.type == "meta" else device


def _execution_device(model: nn.Module) -> torch.device:
    """The device on which accelerate runs a model whose weights are offloaded until they are used."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        # A SequentialHook contains several hooks.
        for part in (hook, *getattr(hook, "hooks", ())):
            if (device := getattr(part, "execution_device", None)) is not None:
                return torch.device(device)
    return torch.device("meta")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating dtype that a model expects."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


FLOAT32_TOLERANCE = 5e-5
"""Relative tolerance of scores in float32."""


def relative_tolerance(model: nn.Module, autocast: torch.dtype | None) -> float:
    """Relative tolerance between two ways of computing a model's scores, such as two batch sizes."""
    if autocast is not None or dtype_of(model) not in (torch.float32, torch.float64):
        return 5e-2
    # Accelerators may multiply float32 in TF32, with 10 bits of mantissa.
    return FLOAT32_TOLERANCE if device_of(model).type == "cpu" else 1e-3


def placement_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and floating dtype that a model expects of its inputs."""
    # The first parameter usually has both; this runs for every batch.
    first = next(model.parameters(), None)
    if first is not None and first.is_floating_point() and first.device.type != "meta":
        return first.device, first.dtype
    return device_of(model), dtype_of(model)


def provenance(model: nn.Module, config: object, runtime: Runtime) -> dict[str, Any]:
    """Model id, dtype and device, for the record."""
    return {
        "model": getattr(config, "name_or_path", "") or type(model).__name__,
        "dtype": str(runtime.autocast or dtype_of(model)).removeprefix("torch."),
        "device": str(runtime.device or device_of(model)),
    }
