"""Properties of every method; the fixtures iterate over the public lists, so that a new method is tested too."""

import pytest
import torch

from interpreto import IMAGES_ONLY, METHODS
from tests import laws, models
from tests.laws import assert_equal_outputs
from tests.models import light

BY_NAME = {method.__name__: method for method in METHODS}


@pytest.fixture
def method(request):
    return light(BY_NAME[request.param])


@pytest.fixture
def setting(request):
    return models.setting(request.param)


def pytest_generate_tests(metafunc):
    """Parametrize with every method on every modality that it supports."""
    names = metafunc.fixturenames
    if "method" in names and "setting" in names:
        pairs = [(name, modality) for name in BY_NAME for modality in ("text", "image")]
        pairs = [pair for pair in pairs if pair not in [(method.__name__, "text") for method in IMAGES_ONLY]]
        metafunc.parametrize(("method", "setting"), pairs, indirect=True)


def snapshot(model):
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "grads": [(p.requires_grad, p.grad) for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "names": [sorted(module.__dict__) for module in model.modules()],
        "config": model.config.to_dict(),
    }


def assert_same(before, after):
    for name, tensor in before.pop("state").items():
        assert torch.equal(tensor, after["state"][name])
    after.pop("state")
    assert before == after


def test_the_model_comes_back_as_it_was(method, setting):
    model, processor, inputs = setting
    model.train()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    before, random = snapshot(model), torch.get_rng_state()
    try:
        method(model, processor)(inputs)
        assert_same(before, snapshot(model))
        assert torch.equal(random, torch.get_rng_state())
    finally:
        model.eval().requires_grad_(True)


def test_the_model_comes_back_as_it_was_after_an_exception(method, setting):
    model, processor, inputs = setting
    calls = []

    def explode(module, given, output):
        calls.append(module)
        if len(calls) > 2:
            raise RuntimeError("in the middle of the work")

    handle = next(iter(model.children())).register_forward_hook(explode)
    before, random = snapshot(model), torch.get_rng_state()
    try:
        with pytest.raises(RuntimeError, match="in the middle"):
            method(model, processor, batch_size=1)(inputs)
        assert_same(before, snapshot(model))
        assert torch.equal(random, torch.get_rng_state())
    finally:
        handle.remove()


def test_the_same_seed_gives_the_same_numbers_whatever_the_batch_size(method, setting):
    model, processor, inputs = setting
    laws.assert_batch_invariance(method, model, processor, inputs, batch_sizes=(1, 7, 16))


def test_other_samples_and_order_do_not_change_results(method, setting):
    model, processor, inputs = setting
    laws.assert_batch_composition_invariance(method, model, processor, inputs)


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
def test_works_inside_the_callers_grad_modes(method, setting, caller):
    model, processor, inputs = setting
    expected = method(model, processor)(inputs[:1])
    with caller():
        assert_equal_outputs(method(model, processor)(inputs[:1]), expected, 1e-6)


def test_outputs_have_the_shapes_that_they_promise(method, setting):
    model, processor, inputs = setting
    for output in method(model, processor)(inputs, targets=(0, 2)):
        units = output.attributions.shape[1:]
        assert output.attributions.shape[0] == len(output.target_names) == len(output.scores) == 2
        assert len(output.elements) == torch.Size(units).numel()
        assert output.attributions.isfinite().all()
        assert output.n_evaluations > 0
        if output.standard_errors is not None:
            assert output.standard_errors.shape == output.attributions.shape


def test_several_targets_are_the_same_as_one_by_one(method, setting):
    model, processor, inputs = setting
    both = method(model, processor)(inputs[0], targets=(0, 2))[0]
    for number, target in enumerate((0, 2)):
        alone = method(model, processor)(inputs[0], targets=target)[0]
        assert torch.allclose(both.attributions[number], alone.attributions[0], atol=1e-6, rtol=1e-4)


def test_streaming_is_the_same_as_one_call(method, setting):
    model, processor, inputs = setting
    streamed = method(model, processor, batch_size=2).stream(iter(inputs), targets=1)
    assert_equal_outputs(list(streamed), method(model, processor)(inputs, targets=1))


@pytest.mark.parametrize("name", [name for name in BY_NAME if BY_NAME[name] not in IMAGES_ONLY])
def test_padding_of_the_user_is_stripped(name):
    model, tokenizer, texts = models.setting("text")
    method = light(BY_NAME[name], granularity="token")
    expected = [output.attributions for output in method(model, tokenizer)(texts)]
    for side in ("left", "right"):
        encoded = tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        for output, wanted in zip(method(model, tokenizer)(encoded), expected, strict=True):
            assert torch.allclose(output.attributions, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["Lime", "KernelShap", "Rise", "Sobol", "SmoothGrad", "VarGrad", "GradientShap"])
def test_another_seed_gives_other_numbers(name):
    model, processor, inputs = models.setting("text")
    method = light(BY_NAME[name])
    one, other = (method(model, processor, seed=seed)(inputs[1])[0] for seed in (0, 1))
    assert not torch.equal(one.attributions, other.attributions)
    assert one.standard_errors is not None
