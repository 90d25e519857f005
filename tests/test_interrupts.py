"""KeyboardInterrupts during a call."""

import pytest
import torch
from torch import nn

from tests.conftest import reduced
from tests.interrupts import StateSnapshot, interrupted_at, lines_of
from tests.models import image_model
from tests.test_threads import FAMILIES, all_close, attributions_of

# Lines are many and each takes a call: these families open every kind of context between them, and so many of their
# lines are tried here, all of them by `python -m benchmarks.interrupts`.
FAMILIES_OF_CONTEXTS = ("attention and gradients", "guided backpropagation", "generation and gradients", "other sizes")
LINES = 64


def subset(lines):
    return lines[:: max(1, len(lines) // reduced(LINES))]


def model_and_call(name):
    model, explainer, inputs, target = FAMILIES[name]()
    return model, lambda: attributions_of(explainer, inputs[0], target)


@pytest.mark.parametrize("name", FAMILIES_OF_CONTEXTS)
def test_an_interrupt_at_any_line_changes_nothing(name):
    model, call = model_and_call(name)
    expected, snapshot = call(), StateSnapshot(model)
    for place in subset(lines_of(call)):
        interrupted_at(call, place)
        assert not snapshot.changes(), place
    assert all_close(call(), expected)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupt_at_any_hook_changes_nothing(name, before, monkeypatch):
    model, call = model_and_call(name)
    expected, snapshot = call(), StateSnapshot(model)
    count, stop = [0], [0]
    for kind in ("register_forward_hook", "register_forward_pre_hook", "register_module"):
        register = getattr(nn.Module, kind)

        def registered(*args, _register=register, **options):
            count[0] += 1
            if count[0] == stop[0] and before:
                raise KeyboardInterrupt
            handle = _register(*args, **options)
            if count[0] == stop[0]:
                raise KeyboardInterrupt
            return handle

        monkeypatch.setattr(nn.Module, kind, registered)
    call()
    for stop[0] in range(1, count[0] + 1):
        count[0] = 0
        with pytest.raises(KeyboardInterrupt):
            call()
        assert not snapshot.changes()
    stop[0] = 0
    assert all_close(call(), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_an_interrupt_restores_a_model_that_cannot_be_copied():
    from interpreto import Occlusion
    from tests.models import some_images

    model, processor = image_model("torchvision-resnet")
    script = torch.jit.trace(model, torch.rand(2, 3, 32, 32))
    script.train()
    explainer = Occlusion(script, processor, task="image-classification")
    call = lambda: attributions_of(explainer, some_images()[0], 0)  # noqa: E731
    expected, snapshot = call(), StateSnapshot(script)
    for place in subset(lines_of(call)):
        interrupted_at(call, place)
        assert not snapshot.changes(), place
    assert all_close(call(), expected)
