"""Concurrent calls: several explainers, and the user's own forward passes."""

import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from interpreto import (
    XRAI,
    AttentionRollout,
    BlurIG,
    Deletion,
    GradCam,
    GradEclip,
    GuidedBackprop,
    GuidedIG,
    IntegratedGradients,
    KernelShap,
    LeGrad,
    MaxSensitivity,
    ModelRandomization,
    Occlusion,
    Rise,
    Saliency,
    SmoothGrad,
    Sobol,
)
from tests.causal_lms import causal_lm
from tests.conftest import reduced
from tests.dual_encoders import dual_encoder_model
from tests.models import TEXTS, image_model, light, some_images, text_model

THREADS, CALLS = 8, 50


def _text(method, **options):
    model, tokenizer = text_model("bert")
    return model, light(method, **options)(model, tokenizer), TEXTS, 0


def _image(method, name="vit", **options):
    model, processor = image_model(name)
    return model, light(method, **options)(model, processor), some_images(), 0


def _generation(method, targets, **options):
    model, tokenizer = causal_lm("llama")
    return model, light(method, **options)(model, tokenizer), ["The plot was not good.", "A film"], targets


def _similarity(method, **options):
    model, processor = dual_encoder_model("clip")
    return model, method(model, processor, **options), some_images(), "a red square"


FAMILIES = {
    "masks of texts": lambda: _text(Occlusion),
    "masks of images": lambda: _image(Rise),
    "coalitions": lambda: _text(KernelShap),
    "Sobol designs": lambda: _image(Sobol),
    "gradients": lambda: _text(Saliency),
    "straight paths": lambda: _text(IntegratedGradients),
    "blurred paths": lambda: _image(BlurIG),
    "adaptive paths": lambda: _image(GuidedIG),
    "noise": lambda: _text(SmoothGrad),
    "guided backpropagation": lambda: _image(GuidedBackprop, "torchvision-resnet"),
    "regions": lambda: _image(XRAI),
    "attention": lambda: _text(AttentionRollout),
    "attention of PyTorch's module": lambda: _image(LeGrad, "torchvision-vit"),
    "attention and gradients": lambda: _image(LeGrad),
    "values": lambda: _image(GradEclip),
    "features": lambda: _image(GradCam, "torchvision-resnet"),
    "continuations": lambda: _generation(Occlusion, " and we saw"),
    "sampled generation": lambda: _generation(
        Occlusion, None, generation_kwargs={"do_sample": True, "max_new_tokens": 4}
    ),
    "generation and gradients": lambda: _generation(IntegratedGradients, " and we saw"),
    "similarity": lambda: _similarity(LeGrad),
    "other sizes": lambda: _similarity(Occlusion, image_size=48),
}


def attributions_of(explainer, one, target):
    return explainer(one, targets=target)[0].attributions


def all_close(found, expected):
    scale = max(float(expected.nan_to_num().abs().max()), 1e-6)
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5 * scale, equal_nan=True)


@pytest.fixture
def families():
    """Every family on the shared models, with the results of a single thread."""
    jobs = []
    for name, build in FAMILIES.items():
        model, explainer, inputs, target = build()
        jobs += [(name, model, explainer, one, target, attributions_of(explainer, one, target)) for one in inputs[:2]]
    return jobs


def test_threads_have_the_results_of_one_thread(families):
    wrong = []

    def work(number):
        draw = random.Random(number)
        for _ in range(reduced(CALLS)):
            name, _model, explainer, one, target, expected = draw.choice(families)
            if not all_close(attributions_of(explainer, one, target), expected):
                wrong.append(name)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert not wrong


@pytest.mark.parametrize("training", [False, True])
def test_the_users_own_forward_is_never_changed(training):
    """A model that runs in its own mode while other threads explain it."""
    model, tokenizer = text_model("bert")
    model = copy.deepcopy(model)
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train(training)
    expected = model(**encoded).logits.detach()
    stop, wrong, calls = threading.Event(), [], []

    def use():
        while not stop.is_set():
            logits = model(**encoded).logits
            calls.append(logits)
            modes = {module.training for module in model.modules()}
            if not torch.allclose(logits, expected, atol=1e-6) or modes != {training} or not logits.requires_grad:
                wrong.append(logits)

    def explain(method):
        explainer = light(method)(model, tokenizer)
        return [attributions_of(explainer, text, 0) for _ in range(4) for text in TEXTS]

    user = threading.Thread(target=use)
    user.start()
    methods = [Occlusion, IntegratedGradients, LeGrad, GuidedBackprop, AttentionRollout, SmoothGrad]
    with ThreadPoolExecutor(len(methods)) as pool:
        found = dict(zip(methods, pool.map(explain, methods), strict=True))
    stop.set()
    user.join()
    assert calls
    assert not wrong
    model.eval()
    for method, maps in found.items():
        for one, other in zip(maps, explain(method), strict=True):
            assert all_close(one, other), method


def test_models_that_share_a_part_are_safe_too():
    model, tokenizer = text_model("bert")
    other = copy.copy(model)
    other._modules = {**model._modules, "classifier": copy.deepcopy(model.classifier)}
    torch.nn.init.normal_(other.classifier.weight)
    assert other.bert is model.bert
    explainers = [light(method)(one, tokenizer) for method in (IntegratedGradients, LeGrad) for one in (model, other)]
    expected = [attributions_of(explainer, TEXTS[1], 0) for explainer in explainers]

    def work(number):
        chosen = number % len(explainers)
        return all_close(attributions_of(explainers[chosen], TEXTS[1], 0), expected[chosen])

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(80)))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_calls_on_models_that_cannot_be_copied_wait_for_each_other():
    """TorchScript supports perturbation methods only, one call after the other."""
    model, processor = image_model("torchvision-resnet")
    script = torch.jit.trace(model, torch.rand(2, 3, 32, 32))
    script.train()
    explainer = Occlusion(script, processor, task="image-classification")
    expected = [attributions_of(explainer, one, 0) for one in some_images()]
    for one, plain in zip(some_images(), expected, strict=True):
        assert all_close(plain, attributions_of(Occlusion(model, processor), one, 0))
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda number: attributions_of(explainer, some_images()[number % 3], 0), range(24)))
    assert all(all_close(one, expected[number % 3]) for number, one in enumerate(found))
    assert script.training
    assert "TorchScript" in explainer(some_images()[0])[0].info["working_copy"]


def test_the_global_random_generator_is_not_used():
    """Another thread draws the same numbers as alone, while generation samples."""
    model, tokenizer = causal_lm("llama")
    explainer = Occlusion(model, tokenizer, generation_kwargs={"do_sample": True, "max_new_tokens": 3})
    torch.manual_seed(0)
    expected = [torch.rand(3) for _ in range(200)]
    torch.manual_seed(0)
    done = threading.Event()

    def explain():
        for _ in range(5):
            explainer("The plot was")
        done.set()

    worker = threading.Thread(target=explain)
    worker.start()
    found = [torch.rand(3) for _ in range(100)]
    done.wait()
    worker.join()
    found += [torch.rand(3) for _ in range(100)]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("metric", [Deletion, MaxSensitivity, ModelRandomization])
def test_metrics_in_several_threads(metric):
    model, tokenizer = text_model("bert")
    method = light(IntegratedGradients)(model, tokenizer)
    outputs = method(TEXTS, targets=0)
    evaluator = metric(model, tokenizer) if metric is Deletion else metric(method)
    expected = evaluator.evaluate(outputs).per_sample
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(lambda _: evaluator.evaluate(outputs).per_sample, range(THREADS)):
            assert torch.allclose(found, expected, atol=1e-5)


def test_the_users_tokenizer_keeps_its_state():
    """A fast tokenizer keeps the truncation of its last call, which a call in another thread would reset."""
    model, tokenizer = text_model("bert")
    tokenizer = copy.deepcopy(tokenizer)
    explainer = Occlusion(model, tokenizer)
    stop, lengths = threading.Event(), set()

    def use():
        while not stop.is_set():
            lengths.add(len(tokenizer("the plot was good " * 40, truncation=True, max_length=16)["input_ids"]))

    user = threading.Thread(target=use)
    user.start()
    for _ in range(30):
        explainer("the plot was not good")
    stop.set()
    user.join()
    assert lengths == {16}
    assert tokenizer.backend_tokenizer.truncation is not None
