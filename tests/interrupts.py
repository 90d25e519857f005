"""KeyboardInterrupts at chosen lines of a call, and a snapshot of the state that a call must not change."""

import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.overrides import _get_current_function_mode_stack

import interpreto
from interpreto.model_wrapping.execution.module_state import ModuleState

ROOT = str(Path(interpreto.__file__).parent)


class _Tracer:
    """Records the first execution of every line of the package, and raises at one of them."""

    def __init__(self, stop=None):
        self.stop, self.lines = stop, {}

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        if event == "line":
            place = (frame.f_code.co_filename, frame.f_lineno)
            if place not in self.lines:
                self.lines[place] = len(self.lines)
                if place == self.stop:
                    raise KeyboardInterrupt
        return self


@contextmanager
def _traced(tracer):
    before = sys.gettrace()
    sys.settrace(tracer)
    threading.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(call):
    """The lines of the package that a call executes, in the order of their first execution."""
    tracer = _Tracer()
    with _traced(tracer):
        call()
    return list(tracer.lines)


def interrupted_at(call, place):
    """Make a call with a KeyboardInterrupt at the first execution of a line; return whether it was raised."""
    try:
        with _traced(_Tracer(place)):
            call()
    except KeyboardInterrupt:
        return True
    return False


class StateSnapshot:
    """A snapshot of what a call must not change: the model, and PyTorch's state per thread and process."""

    def __init__(self, model):
        self.model, self.state = model, ModuleState.of(model)
        self.thread = self._thread()

    def _thread(self):
        functional = torch.nn.functional
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            len(_get_current_function_mode_stack()),
            torch.is_autocast_enabled("cpu"),
            functional.scaled_dot_product_attention,
            functional.multi_head_attention_forward,
        )

    def changes(self):
        """The parts of the state that have changed."""
        found = [] if self.state.is_current(self.model) else ["model"]
        if any(module.training for module in self.model.modules()) != any(self.state.training):
            found.append("mode")
        return found + ([] if self._thread() == self.thread else ["thread"])
