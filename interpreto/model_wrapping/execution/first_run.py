"""What the first run of a model shows, on which its later runs depend."""

from collections.abc import Collection
from types import TracebackType

from torch.overrides import TorchFunctionMode

from interpreto.errors import CannotCopyError
from interpreto.model_wrapping.execution.gradient_mode import SET_GRAD_ENABLED
from interpreto.model_wrapping.execution.randomness import RANDOM_FUNCTIONS, OwnGenerator
from interpreto.typing import TorchFunction


class FirstRun(TorchFunctionMode):
    """A context that observes one run of a working copy, and lets random functions draw from our own generators.

    A function mode is called for every function of PyTorch, so one mode observes everything. Gradients must be disabled
    when the context is entered: calls that disable them are then the model's.

    Args:
        seed: The seed of the generators.
        original_parameters: Ids of the parameters of the model that was copied. None of its modules may run: a module
            that is called through a closure is not copied with the model, so that hooks on its copy would never run.

    Attributes:
        disables_gradients: Whether the forward disables gradients, as for a frozen backbone.

    Raises:
        CannotCopyError: at the end of the context, if a module of the original ran.
    """

    def __init__(self, seed: int, original_parameters: Collection[int] = ()) -> None:
        TorchFunctionMode.__init__(self)
        self.original_parameters = original_parameters
        self.disables_gradients = False
        self._generator = OwnGenerator(seed)
        self._runs_original = False

    @property
    def draws(self) -> bool:
        """Whether any random number was drawn."""
        return self._generator.used

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        TorchFunctionMode.__exit__(self, kind, error, trace)
        # A mix of original and copied modules may also fail, on two devices for example; then the closure is the cause.
        # An interrupt of the user stays one.
        if self._runs_original and (error is None or isinstance(error, Exception)):
            raise CannotCopyError("its forward calls modules through a closure") from error

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        options = kwargs or {}
        if not self._runs_original and self.original_parameters:
            for value in (*args, *options.values()):
                # Fused recurrent layers take a list of weights.
                tensors = value if isinstance(value, list | tuple) else (value,)
                if any(id(tensor) in self.original_parameters for tensor in tensors):
                    self._runs_original = True
        if func in RANDOM_FUNCTIONS:
            return self._generator.call(func, args, options)
        if func is SET_GRAD_ENABLED and not args[0]:
            self.disables_gradients = True
        return func(*args, **options)
