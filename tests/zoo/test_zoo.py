"""The zoo's models: accuracy as on their cards, and methods that find the known decisive inputs."""

import re

import pytest
import torch

from interpreto import IntegratedGradients, KernelShap, Occlusion, Rise, SmoothGrad, zoo
from tests.conftest import loaded, reduced

LEAST = {"digits-cnn": 0.97, "digits-vit": 0.97, "shapes-vit": 0.98, "reviews-bert": 0.98, "stories-gpt2": 0.98}
CLASSIFIERS = [name for name in LEAST if name != "stories-gpt2"]


def test_all_models_are_listed():
    assert set(LEAST) <= set(zoo.names())


@pytest.mark.parametrize("name", LEAST)
def test_cards(name):
    assert zoo.card(name)["held_out_accuracy"] >= LEAST[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy(name):
    model, processor = loaded(name)
    examples = zoo.samples(name)
    inputs = [example.input for example in examples]
    options = {"padding": True} if name == "reviews-bert" else {}
    with torch.no_grad():
        predicted = model(**processor(inputs, return_tensors="pt", **options)).logits.argmax(-1)
    right = (predicted == torch.tensor([example.label for example in examples])).double().mean()
    assert right >= LEAST[name]


def test_stories_continue_with_the_decisive_word():
    model, tokenizer = loaded("stories-gpt2")
    examples = zoo.samples("stories-gpt2")
    right = 0
    for example in examples:
        with torch.no_grad():
            logits = model(**tokenizer(example.input, return_tensors="pt")).logits[0, -1]
        right += tokenizer.decode(int(logits.argmax())) == example.label
        assert re.findall(r"\w+", example.input).count(example.truth[0]) == 1
    assert right / len(examples) >= LEAST["stories-gpt2"]


def test_the_models_are_small():
    size = sum(path.stat().st_size for path in zoo.path("shapes-vit").parent.rglob("*"))
    assert size < 10_000_000


def covered(output, mask):
    """The share of the top patch that is on the decisive object."""
    boxes = output.elements.int()
    left, top, right, bottom = boxes[int(output.attributions[0].argmax())].tolist()
    return mask[top:bottom, left:right].mean()


pytestmark = pytest.mark.usefixtures("without_type_checks")

SHAPES = {
    "IntegratedGradients": (IntegratedGradients, {}, 200),
    "Occlusion": (Occlusion, {}, 200),
    "SmoothGrad": (SmoothGrad, {"noise_level": 0.25}, 200),
    # Fewer samples than in the table of the docs, for a fast suite.
    "KernelShap": (KernelShap, {}, 60),
    "Rise": (Rise, {"n_samples": 1000}, 40),
}


def shares_of(name):
    """The share of each image's top patch that is on the decisive shape."""
    method, options, count = SHAPES[name]
    examples = zoo.samples("shapes-vit", reduced(count, least=min(50, count // 2)))
    outputs = method(*loaded("shapes-vit"), **options)([example.input for example in examples])
    return torch.tensor([covered(o, example.truth) for o, example in zip(outputs, examples, strict=True)])


@pytest.mark.parametrize("name", SHAPES)
def test_the_top_patch_touches_the_decisive_shape_and_mostly_a_quarter_is_on_it(name):
    shares = shares_of(name)
    assert (shares > 0).double().mean() >= 0.95
    assert (shares >= 0.25).double().mean() >= 0.9


@pytest.mark.parametrize("method", [KernelShap, Occlusion, IntegratedGradients])
def test_the_decisive_word_is_among_the_top_two(method):
    examples = zoo.samples("reviews-bert", reduced(200, least=20))
    outputs = method(*loaded("reviews-bert"))([example.input for example in examples])
    found = 0
    for output, example in zip(outputs, examples, strict=True):
        top = output.attributions[0].topk(2).indices.tolist()
        found += example.truth[0] in [output.elements[unit].strip().lower() for unit in top]
    assert found / len(examples) >= 0.95


@pytest.mark.parametrize("method", [Occlusion, KernelShap, IntegratedGradients])
def test_the_decisive_word_of_a_story_is_on_top(method):
    examples = zoo.samples("stories-gpt2", reduced(200, least=20))
    explain = method(*loaded("stories-gpt2"), inference_mode="softmax")
    outputs = explain([example.input for example in examples], targets=[example.label for example in examples])
    tops = [output.elements[int(output.attributions[0].nan_to_num(-torch.inf).argmax())] for output in outputs]
    found = [top.strip() == example.truth[0] for top, example in zip(tops, examples, strict=True)]
    assert sum(found) / len(found) >= 0.95


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_integrated_gradients_are_complete(name):
    examples = zoo.samples(name, reduced(40, least=16))
    gaps = {}
    for n_steps in (16, 64):
        outputs = IntegratedGradients(*loaded(name), n_steps=n_steps)([example.input for example in examples])
        gaps[n_steps] = torch.tensor(
            [float(o.completeness_gap.abs() / (o.attributions.sum() + o.completeness_gap).abs()) for o in outputs]
        )
    assert gaps[64].median() < 0.01
    assert gaps[64].quantile(0.95) < 0.05
    assert gaps[64].mean() <= gaps[16].mean()
