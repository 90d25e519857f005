"""Working copies: a copy of the Python structure of a user's model that shares the tensors of the original.

Running an explainer adds hooks, switches modes, and changes attributes of modules and configs. All of this happens to a
copy, so that the user's model is the same before, during and after a call, in every thread, even if the call is
interrupted, and calls of several threads run concurrently. A copy takes no memory beyond its Python objects.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpreto.errors import CannotCopyError
from interpreto.model_wrapping.execution.module_state import ModuleState
from interpreto.model_wrapping.execution.norm_layers import keep_layout
from interpreto.model_wrapping.runtime import unwrap_model
from interpreto.type_guards import is_list
from interpreto.typing import TorchFunction

_MAX_COPIED_BYTES = 2**22
"""Buffers up to this number of bytes are copied too, because a forward may write to them."""
_MAX_REREAD_BYTES = 2**16
"""Buffers up to this number of bytes are read again in every call: writes to `.data` do not increase the version."""
_COMPILED = "_compiled_call_impl"
"""The attribute in which a module that was compiled in place stores the compiled call."""
_ATTEMPTS = 10
"""Number of attempts to copy a model whose attributes other threads change at the same time."""


class _SharedTensors(TorchFunctionMode):
    """Makes `copy.deepcopy` of this thread share tensors instead of copying them."""

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if func in (Tensor.__deepcopy__, Tensor.clone):
            return args[0]
        return func(*args, **(kwargs or {}))


@final
class WorkingCopy:
    """A copy of a model in evaluation mode that shares its parameters.

    Plain parameters are aliases without gradients: changes of `requires_grad` or `data` of the originals do not affect
    a run in progress. Parameters of other classes (quantization libraries) are the originals themselves.

    Args:
        original: The user's model.

    Attributes:
        module: The copy.

    Raises:
        CannotCopyError: if the model cannot be copied.
    """

    def __init__(self, original: nn.Module) -> None:
        self.original = original
        if reason := _copy_obstacle(original):
            raise CannotCopyError(reason)
        for attempt in range(_ATTEMPTS):
            try:
                self._state_of_original = ModuleState.of(original)
                self.module, self._aliases, self._buffers = _copied(original)
                break
            except RuntimeError as error:
                # "dictionary changed size during iteration": another thread has changed the model, so copying is
                # repeated.
                if "during iteration" not in str(error) or attempt + 1 == _ATTEMPTS:
                    raise CannotCopyError(f"{type(error).__name__}: {error}") from error
        prepare(self.module)
        self._versioned = [pair for pair in self._buffers if _has_version(pair[0])]
        # Aliases share memory with their parameters, except for those made in inference mode, which are copies.
        self._unversioned = [pair for pair in self._aliases if pair[0].is_inference()]
        self._unversioned += [pair for pair in self._buffers if not _has_version(pair[0])]
        self._versions = self._versions_now()
        self._parameter_locations = [(p.data_ptr(), p.dtype, p.shape) for p, _ in self._aliases]
        self._state_on_original_device = self._state = ModuleState.of(self.module)
        self._target_device: torch.device | None = None
        self._submodules = [
            (m._modules, name, part) for m in self.module.modules() for name, part in m._modules.items()
        ]

    def is_current(self) -> bool:
        """Whether the user has changed nothing of the original except the values of parameters and buffers."""
        locations = [(p.data_ptr(), p.dtype, p.shape) for p, _ in self._aliases]
        return locations == self._parameter_locations and self._state_of_original.is_current(self.original)

    def reset(self) -> None:
        """Restore the structure of the copy, with the current values of the original's buffers."""
        device = self._target_device
        if device is not None:
            self.release_device()
        self._state.restore()
        if self._versions_now() != self._versions:
            for buffer, copied in self._versioned:
                copied.copy_(buffer)
            self._versions = self._versions_now()
        for original, copied in self._unversioned:
            copied.copy_(original)
        if device is not None:
            self.move(device)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Restore the values of small buffers, to which a forward may write, when the context ends."""
        saved = [copied.clone() for _, copied in self._buffers]
        try:
            yield
        finally:
            for (_, copied), values in zip(self._buffers, saved, strict=True):
                copied.copy_(values)

    def reset_submodules(self) -> None:
        """Restore submodules that a forward has replaced (BigBird does, for short texts), for the next batch."""
        if not all(parts.get(name) is part for parts, name, part in self._submodules):
            self._state.restore()

    def _versions_now(self) -> list[tuple[int, int]]:
        """Counters that increase when a buffer is written to."""
        return [(buffer._version, copied._version) for buffer, copied in self._versioned]

    def move(self, device: torch.device) -> None:
        """Run on another device than the original, with copies of its tensors, until `release_device`."""
        self._target_device = device
        self.module.to(device)
        self._state = ModuleState.of(self.module)

    def release_device(self) -> None:
        """Make the parameters share memory with the original again, after the copy was on another device."""
        for parameter, alias in self._aliases:
            alias.data = _values(parameter)
        self._state, self._target_device = self._state_on_original_device, None
        self._state.restore()

    @property
    def original_parameters(self) -> set[int]:
        """Ids of the parameters of the original that have an alias."""
        return {id(parameter) for parameter, _ in self._aliases}


def prepare(module: nn.Module) -> None:
    """Prepare a model for explanation.

    Sets evaluation mode and `return_dict` of configs, and adds the hooks of `keep_layout`. Compiled submodules are
    replaced by the original ones, which would otherwise be traced again for every method and its hooks.
    """
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if (inner := unwrap_model(child)) is not child:
                setattr(part, name, inner)
    module.eval()
    for part in module.modules():
        config: Any = getattr(part, "config", None)
        if getattr(config, "return_dict", True) is False:
            config.return_dict = True
    keep_layout(module)


def _copied(
    original: nn.Module,
) -> tuple[nn.Module, list[tuple[nn.Parameter, nn.Parameter]], list[tuple[Tensor, Tensor]]]:
    """The copy, plain parameters with their aliases, and small buffers with their copies."""
    with torch.inference_mode(False), torch.no_grad():
        aliases = [(p, _alias(p)) for p in original.parameters() if type(p) is nn.Parameter and type(p.data) is Tensor]
        tensors = (*original.buffers(), *_plain_tensors(original))
        buffers = [(b, b.detach().clone()) for b in tensors if type(b) is Tensor and _is_small(b)]
    # deepcopy takes objects in its memo as already copied: parameters become aliases, and hooks of the user stay the
    # same objects.
    memo: dict[int, Any] = {id(tensor): replacement for tensor, replacement in (*aliases, *buffers)}
    memo |= {id(hook): hook for hook in _hooks(original) if not _belongs_to_module(hook)}
    try:
        with torch.inference_mode(False), torch.no_grad(), _SharedTensors():
            return copy.deepcopy(original, memo), aliases, buffers
    except RuntimeError:
        raise
    except Exception as error:
        # Attributes of a model may be objects that cannot be copied: locks, sockets, process groups.
        raise CannotCopyError(f"{type(error).__name__}: {error}") from error


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    alias = nn.Parameter(_values(parameter), requires_grad=False)
    # Libraries attach attributes to parameters, which an alias must have too.
    for name, value in parameter.__dict__.items():
        setattr(alias, name, value)
    return alias


def _values(parameter: nn.Parameter) -> Tensor:
    """The values of a parameter: shared, or copied if they were made in inference mode, which autograd refuses."""
    return parameter.detach().clone() if parameter.is_inference() else parameter.detach()


def _is_small(buffer: Tensor) -> bool:
    return buffer.device.type != "meta" and buffer.nbytes <= _MAX_COPIED_BYTES


def _has_version(buffer: Tensor) -> bool:
    """Whether writes to a buffer increase its version; tensors made in inference mode have none."""
    return not buffer.is_inference() and buffer.nbytes > _MAX_REREAD_BYTES


def _plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules store as plain attributes, to which a forward may write as it does to buffers."""
    values = {id(value): value for module in model.modules() for value in module.__dict__.values()}
    for value in values.values():
        if type(value) is Tensor and value.grad_fn is None and not value.requires_grad:
            yield value


def _hooks(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for name, value in dict(module.__dict__).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                yield from list(value.values())


def _belongs_to_module(hook: object) -> bool:
    """Whether a hook is bound to a module and must be copied with it; other hooks are called unchanged."""
    if isinstance(hook, partial):
        return any(isinstance(value, nn.Module) for value in (*hook.args, *hook.keywords.values()))
    return isinstance(hook, MethodType) and isinstance(hook.__self__, nn.Module)


def _copy_obstacle(model: nn.Module) -> str:
    """Why a model cannot be copied, judged by its structure; empty if there is no obstacle."""
    modules = {id(module) for module in model.modules()}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            return "it is a TorchScript module"
        for name, value in dict(module.__dict__).items():
            if name == _COMPILED:
                # The compiled call is not copied.
                continue
            if isinstance(value, FunctionType) and any(id(one) in modules for one in _closure_values(value)):
                return f"{value.__qualname__} of {type(module).__name__} calls modules through a closure"
    return ""


def _closure_values(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
            yield from content if is_list(content) else (content,)
        except ValueError:
            # The cell is empty: the name is bound later.
            continue
    yield from function.__defaults__ or ()
