"""Working copies: the Python structure of a user's model, copied, with the tensors of the original.

A run of an explainer adds hooks, switches modes, changes attributes of modules and configs. All of that happens to a
copy, so that the user's model is the same before, during and after a call, in every thread, whatever interrupts the
call, and calls of several threads run side by side. Copying takes no memory beyond the Python objects.
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

_PRIVATE_BUFFER = 2**22
"""Buffers of at most so many bytes are copied too, for a forward may write to them."""
_COUNTED = 2**16
"""Buffers of at most so many bytes are read anew in every call, for not every write to them is counted (`.data`)."""
_COMPILED = "_compiled_call_impl"
"""Where a module that was compiled in place keeps the compiled call."""
_ATTEMPTS = 10
"""How often copying is tried while other threads change the attributes of the model."""


class _SharedTensors(TorchFunctionMode):
    """Lets `copy.deepcopy` of this thread hand on tensors themselves."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__deepcopy__, Tensor.clone):
            return args[0]
        return func(*args, **(kwargs or {}))


class _OriginalParameterDetector(TorchFunctionMode):
    """Notices whether functions of PyTorch are called with parameters of the original."""

    def __init__(self, parameters: set[int]) -> None:
        TorchFunctionMode.__init__(self)
        self.parameters, self.seen = parameters, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.seen:
            for value in (*args, *(kwargs or {}).values()):
                several = value if isinstance(value, list | tuple) else (value,)
                self.seen = self.seen or any(id(one) in self.parameters for one in several)
        return func(*args, **(kwargs or {}))


@final
class WorkingCopy:
    """A copy of a model in evaluation mode that shares its parameters.

    Plain parameters are aliases without gradients: what the user does to `requires_grad` or `data` of the originals
    does not reach a run under way. Parameters of other classes (quantisation libraries) are the originals themselves.

    Args:
        original: The user's model.

    Attributes:
        module: The copy.

    Raises:
        CannotCopyError: if the model cannot be copied.
    """

    def __init__(self, original: nn.Module) -> None:
        self.original = original
        if reason := _reason_against(original):
            raise CannotCopyError(reason)
        for attempt in range(_ATTEMPTS):
            try:
                self._state_of_original = ModuleState.of(original)
                self.module, self._aliases, self._buffers = _copied(original)
                break
            except RuntimeError as error:
                if "during iteration" not in str(error) or attempt + 1 == _ATTEMPTS:
                    raise CannotCopyError(f"{type(error).__name__}: {error}") from error
        prepare(self.module)
        self._counted = [pair for pair in self._buffers if _counts_writes(pair[0])]
        # Of parameters, which are aliases, only those made in inference mode are copies.
        self._uncounted = [pair for pair in self._aliases if pair[0].is_inference()]
        self._uncounted += [pair for pair in self._buffers if not _counts_writes(pair[0])]
        self._versions = self._versions_now()
        self._placed = [(p.data_ptr(), p.dtype, p.shape) for p, _ in self._aliases]
        self._at_home = self._state = ModuleState.of(self.module)
        self._away: torch.device | None = None
        self._submodules = [
            (m._modules, name, part) for m in self.module.modules() for name, part in m._modules.items()
        ]

    def is_current(self) -> bool:
        """Whether the user has changed nothing of the original but the values of its parameters and buffers."""
        placed = [(p.data_ptr(), p.dtype, p.shape) for p, _ in self._aliases]
        return placed == self._placed and self._state_of_original.is_current(self.original)

    def reset(self) -> None:
        """Put the structure of the copy back to what it was, with the present values of the original's buffers."""
        away = self._away
        if away is not None:
            self.release_device()
        self._state.restore()
        if self._versions_now() != self._versions:
            for buffer, own in self._counted:
                own.copy_(buffer)
            self._versions = self._versions_now()
        for original, own in self._uncounted:
            own.copy_(original)
        if away is not None:
            self.move(away)

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Put the values of small buffers, to which a forward may write, back afterwards."""
        before = [own.clone() for _, own in self._buffers]
        try:
            yield
        finally:
            for (_, own), values in zip(self._buffers, before, strict=True):
                own.copy_(values)

    def reset_submodules(self) -> None:
        """Put submodules back that a forward has exchanged (BigBird does, for short texts), for the next batch."""
        if not all(parts.get(name) is part for parts, name, part in self._submodules):
            self._state.restore()

    def _versions_now(self) -> list[tuple[int, int]]:
        """Counters that rise when something is written to a buffer."""
        return [(buffer._version, own._version) for buffer, own in self._counted]

    def move(self, device: torch.device) -> None:
        """Run on another device than the original, with copies of its tensors there, until `release_device`."""
        self._away = device
        self.module.to(device)
        self._state = ModuleState.of(self.module)

    def release_device(self) -> None:
        """Point the parameters at those of the original again, after the copy was moved to another device."""
        for parameter, alias in self._aliases:
            alias.data = _values(parameter)
        self._state, self._away = self._at_home, None
        self._state.restore()

    @contextmanager
    def checked(self) -> Iterator[None]:
        """A run of the copy in which no module of the original may take part.

        A module that is called through a closure is not copied with the model: hooks on its copy would stay silent.

        Raises:
            CannotCopyError: if one did.
        """
        watch = _OriginalParameterDetector({id(parameter) for parameter, _ in self._aliases})
        cause = None
        try:
            with watch:
                yield
        except Exception as error:
            if not watch.seen:
                raise
            cause = error
        if watch.seen:
            raise CannotCopyError("its forward calls modules through a closure") from cause


def prepare(module: nn.Module) -> None:
    """Make a model ready to be explained.

    It is in evaluation mode, names the parts of what it returns, which its config may forbid, and its normalisation
    layers get what they differentiate right. Compiled parts are replaced by what was compiled, which would be traced
    anew for every method, hooks included.
    """
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if (plain := unwrap_model(child)) is not child:
                setattr(part, name, plain)
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
        held = (*original.buffers(), *_plain_tensors(original))
        buffers = [(b, b.detach().clone()) for b in held if type(b) is Tensor and _is_small(b)]
    memo: dict[int, Any] = {id(own): other for own, other in (*aliases, *buffers)}
    memo |= {id(hook): hook for hook in _hooks(original) if not _belongs_to_module(hook)}
    try:
        with torch.inference_mode(False), torch.no_grad(), _SharedTensors():
            return copy.deepcopy(original, memo), aliases, buffers
    except RuntimeError:
        raise
    except Exception as error:
        # Anything that cannot be copied may hang on a model: locks, sockets, process groups.
        raise CannotCopyError(f"{type(error).__name__}: {error}") from error


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    alias = nn.Parameter(_values(parameter), requires_grad=False)
    for name, value in parameter.__dict__.items():
        setattr(alias, name, value)
    return alias


def _values(parameter: nn.Parameter) -> Tensor:
    """The values of a parameter: its own, or a copy where they were made in inference mode, which autograd refuses."""
    return parameter.detach().clone() if parameter.is_inference() else parameter.detach()


def _is_small(buffer: Tensor) -> bool:
    return buffer.device.type != "meta" and buffer.nbytes <= _PRIVATE_BUFFER


def _counts_writes(buffer: Tensor) -> bool:
    """Whether its version tells of writes; tensors that were made in inference mode have none."""
    return not buffer.is_inference() and buffer.nbytes > _COUNTED


def _plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that modules hold as plain attributes, to which a forward may write as it does to buffers."""
    found = {id(value): value for module in model.modules() for value in module.__dict__.values()}
    for value in found.values():
        if type(value) is Tensor and value.grad_fn is None and not value.requires_grad:
            yield value


def _hooks(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for name, value in dict(module.__dict__).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                yield from list(value.values())


def _belongs_to_module(hook: Any) -> bool:
    """Whether a hook must be copied with the module that it is bound to; others are the user's, and called as is."""
    if isinstance(hook, partial):
        return any(isinstance(value, nn.Module) for value in (*hook.args, *hook.keywords.values()))
    return isinstance(hook, MethodType) and isinstance(hook.__self__, nn.Module)


def _reason_against(model: nn.Module) -> str:
    """Why a copy would not be one, as far as the structure tells; empty where it does not."""
    modules = {id(module) for module in model.modules()}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            return "it is a TorchScript module"
        for name, value in dict(module.__dict__).items():
            if name == _COMPILED:
                # A copy is made without it.
                continue
            if isinstance(value, FunctionType) and any(id(one) in modules for one in _closed_over(value)):
                return f"{value.__qualname__} of {type(module).__name__} calls modules through a closure"
    return ""


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            held = cell.cell_contents
            yield from held if isinstance(held, list | tuple) else (held,)
        except ValueError:
            # A name that is bound later.
            continue
    yield from function.__defaults__ or ()
