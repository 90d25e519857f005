"""What the first run of a working copy shows."""

import pytest
import torch
from torch import nn

from interpreto import Saliency
from interpreto.errors import CannotCopyError
from interpreto.model_wrapping.execution.first_run import FirstRun
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, some_images, text_model


def lease_after_a_call(model, processor, sample):
    explainer = Saliency(model, processor)
    explainer(sample)
    (lease,) = explainer.setup.wrapper._pool._free
    return lease


@pytest.mark.parametrize(
    ("build", "sample"),
    [
        (lambda: text_model("bert"), TEXTS[0]),
        (lambda: image_model("vit"), some_images()[0]),
        (lambda: causal_lm("gpt2"), TEXTS[0]),
    ],
)
def test_contexts_of_the_package_are_not_taken_for_the_models(build, sample):
    """Otherwise every gradient batch would run under a function mode."""
    lease = lease_after_a_call(*build(), sample)
    assert lease.verified
    assert not lease.disables_gradients
    assert not lease.draws


def test_what_a_forward_does_is_seen():
    layer, noise = nn.Linear(2, 2), torch.zeros(1, 2)
    with torch.no_grad(), FirstRun(0) as run:
        layer(noise)
    assert not run.disables_gradients
    assert not run.draws
    with torch.no_grad(), FirstRun(0) as run:
        with torch.no_grad():
            layer(torch.rand_like(noise))
        torch.dropout(noise, 0.5, True)
    assert run.disables_gradients
    assert run.draws


def test_an_interrupt_is_not_replaced_by_an_error():
    layer = nn.Linear(2, 2)
    original = {id(parameter) for parameter in layer.parameters()}

    def run_then_raise(error):
        layer(torch.zeros(1, 2))
        raise error

    with pytest.raises(CannotCopyError, match="closure"), FirstRun(0, original):
        layer(torch.zeros(1, 2))
    with pytest.raises(CannotCopyError, match="closure"), FirstRun(0, original):
        run_then_raise(ValueError)
    with pytest.raises(KeyboardInterrupt), FirstRun(0, original):
        run_then_raise(KeyboardInterrupt)
