"""Every method against the laws that it promises; batch-size and composition invariance are in test_invariants.py."""

import copy
import functools
import types

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from interpreto import IMAGES_ONLY, INTERNALS, METHODS, IntegratedGradients, KernelShap, Occlusion, from_callables
from tests import laws
from tests.models import image_model, light, text_model

BY_NAME = {method.__name__: method for method in METHODS}

SIGNED = {"reduction": "sum"}
MASKING = ("Occlusion", "Lime", "KernelShap", "Sobol", "Rise")
REPEATED = "the plot was good good and the film was dull"
SINGLE_PIXELS = {"segments": np.arange(4).reshape(2, 2)}
RANDOM = {"n_samples": 3000}
SMOOTHED = {"n_samples": 400}
BLURRED = {"max_sigma": 3.0, "n_steps": 64}

PROMISES = {
    "Occlusion": {"symmetry": {}, "dummy": {}, "linearity": {}},
    "Lime": {"symmetry": RANDOM, "dummy": RANDOM, "linearity": {}},
    "KernelShap": {"efficiency": {}, "symmetry": {}, "dummy": {}, "linearity": {}},
    "Sobol": {"symmetry": RANDOM, "dummy": {}},
    "Rise": {"symmetry": RANDOM, "dummy": RANDOM, "linearity": {}},
    "Saliency": {"symmetry": {}, "dummy": {}, "linearity": SIGNED},
    "InputXGradient": {"symmetry": {}, "dummy": {}, "linearity": {}},
    "IntegratedGradients": {"symmetry": {}, "dummy": {}, "linearity": {}, "completeness": {}},
    "SmoothGrad": {"symmetry": SMOOTHED, "dummy": {}, "linearity": SIGNED},
    "SquareGrad": {"symmetry": SMOOTHED, "dummy": {}},
    "VarGrad": {"symmetry": {"n_samples": 700}, "dummy": {}},
    "GradientShap": {"symmetry": {}, "dummy": {}, "linearity": {}, "completeness": {}},
    # A blur mixes neighbours, so that exchangeable pixels at different places have different paths.
    "BlurIG": {"dummy": {}, "linearity": {}, "completeness": BLURRED},
    # The path depends on the target, so that scores are not linear in it.
    "GuidedIG": {"symmetry": {}, "dummy": {}, "completeness": {"n_steps": 64}},
    "GuidedBackprop": {"symmetry": {}, "dummy": {}},
    # If every pixel is a segment of its own, the laws are those of the base method.
    "XRAI": {"symmetry": SINGLE_PIXELS, "dummy": SINGLE_PIXELS, "linearity": SINGLE_PIXELS},
    # Every position has attention, and rectified gradients are not linear: internals promise symmetry alone.
    **{method.__name__: {"symmetry": {}} for method in INTERNALS},
}
"""The laws that each method promises, with the options it needs for that, besides the two of batches that all promise."""

GAPS = {"IntegratedGradients": 1e-6, "GradientShap": 1e-3, "BlurIG": 0.01, "GuidedIG": 0.02}
"""Bounds on the completeness gaps of the games, whose score differences are about 1, 0.4 and 2.4."""


def modalities(name):
    """The kinds of samples for which a method promises its laws here."""
    if name == "Rise":
        return ["text"]  # Masks of neighbouring pixels are correlated, so that a dummy has a share of its neighbours.
    if name in MASKING or BY_NAME[name] in set(INTERNALS) - set(IMAGES_ONLY):
        return ["text", "image"]
    return ["image"]


def promising(law):
    """Parametrize with every method that promises a law, for texts, images or both."""
    cases = [(name, kind) for name in BY_NAME if law in PROMISES.get(name, {}) for kind in modalities(name)]
    return pytest.mark.parametrize(("name", "kind"), cases)


def play(pixels):
    """Of four pixels f = pq + r, g = 2 p r^2 and 3 f - 2 g: p and q are exchangeable in f, and s is a dummy."""
    p, q, r, _ = pixels.flatten(1).T
    f, g = p * q + r, 2 * p * r**2
    return torch.stack([f, g, 3 * f - 2 * g], 1)


SAMPLE = np.array([[[0.75, 0.75], [0.5, 1.0]]], np.float32)


def play_words(texts):
    """The same game of four words, each 1 if it is present."""
    present = torch.tensor([[float(word in text) for word in "pqrs"] for text in texts])
    return play(present[:, None]).numpy()


def rectifying():
    """A network of ReLUs in which the first two pixels are exchangeable, and the last one is a dummy."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        network[1].weight[:, 1] = network[1].weight[:, 0]
        network[1].weight[:, 3] = 0
    return network


@functools.cache
def without_positions(modality):
    """A transformer that does not know where its tokens or patches are, so that equal ones are exchangeable."""
    model, processor = text_model("bert") if modality == "text" else image_model("vit")
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if "position_embeddings" in name:
            nn.init.zeros_(parameter)
    return model, processor


def random_pixels():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


def law_arguments(name, kind, law):
    """The method with the options of the table, a model, its processor, a sample, and two exchangeable units."""
    method, options = BY_NAME[name], PROMISES[name][law]
    if method in INTERNALS and kind == "text":
        return functools.partial(method, **options), *without_positions("text"), REPEATED, (3, 4)
    if method in INTERNALS:
        patches = random_pixels()
        patches[:, 8:16, 24:] = patches[:, 8:16, 8:16]
        return functools.partial(method, **options), *without_positions("image"), patches, (5, 7)
    if kind == "text":
        return functools.partial(method, **options), from_callables(play_words, texts=True), None, "p q r s", (0, 1)
    method = functools.partial(method, task="image-classification", granularity="pixel", batch_size=256, **options)
    # GuidedBackprop changes modules, which a function does not have.
    model = rectifying() if name == "GuidedBackprop" else laws.differentiable(play)
    return method, model, None, SAMPLE, (0, 1)


def play_of(kind):
    """The value of the game for the whole sample."""
    return play_words(["p q r s"])[0] if kind == "text" else play(torch.from_numpy(SAMPLE[None]))[0]


def test_every_method_says_which_laws_it_promises():
    assert set(PROMISES) == set(BY_NAME)
    known = {name.removeprefix("assert_") for name in vars(laws) if name.startswith("assert_")}
    assert {law for promised in PROMISES.values() for law in promised} <= known


@pytest.mark.parametrize("name", BY_NAME)
def test_methods_report_a_completeness_gap_if_and_only_if_they_promise_a_sum(name):
    model, processor = image_model("vit")
    (output,) = light(BY_NAME[name])(model, processor)(random_pixels())
    assert (output.completeness_gap is not None) == bool({"efficiency", "completeness"} & set(PROMISES[name]))


@promising("efficiency")
def test_efficiency(name, kind):
    *arguments, _ = law_arguments(name, kind, "efficiency")
    laws.assert_efficiency(*arguments, difference=torch.as_tensor(play_of(kind)), targets=(0, 1, 2))


@promising("symmetry")
def test_symmetry(name, kind):
    targets = (0, 1, 2) if BY_NAME[name] in INTERNALS else 0
    laws.assert_symmetry(*law_arguments(name, kind, "symmetry"), targets=targets)


@promising("dummy")
def test_dummy(name, kind):
    *arguments, _ = law_arguments(name, kind, "dummy")
    laws.assert_dummy(*arguments, unit=3, targets=(0, 1))


@promising("linearity")
def test_linearity(name, kind):
    *arguments, _ = law_arguments(name, kind, "linearity")
    laws.assert_linearity(*arguments, targets=(0, 1, 2), a=3, b=-2)


@promising("completeness")
def test_completeness(name, kind):
    *arguments, _ = law_arguments(name, kind, "completeness")
    start = np.zeros_like(SAMPLE)
    if name == "BlurIG":
        start = gaussian_filter(SAMPLE, (0, 3.0, 3.0), mode="constant", truncate=4.0)
    difference = play_of(kind) - play(torch.from_numpy(start[None]))[0]
    laws.assert_completeness(*arguments, difference=difference, gap=GAPS[name], targets=(0, 1, 2))


PIXELS = functools.partial(Occlusion, granularity="pixel")
SHAPLEY = functools.partial(KernelShap, granularity="pixel")
COARSE = functools.partial(IntegratedGradients, granularity="pixel", rule="riemann-left", n_steps=2)


class Unstable:
    """A method whose scores depend on the batch size and on the number of samples."""

    def __init__(self, model, processor, batch_size=1):
        self.offset = batch_size

    def __call__(self, inputs):
        count = len(inputs) if isinstance(inputs, list) else 1
        scores = torch.full((1, 2), float(self.offset + count))
        return [types.SimpleNamespace(attributions=scores)] * count


class Vague:
    """A method with standard errors as large as its scores."""

    def __init__(self, model, processor):
        pass

    def __call__(self, inputs):
        scores = torch.tensor([[1.0, 0.0]])
        return [types.SimpleNamespace(attributions=scores, standard_errors=torch.ones_like(scores))]


BROKEN = {
    "efficiency": lambda game: laws.assert_efficiency(SHAPLEY, game, None, SAMPLE, 1.0, targets=0),
    "completeness": lambda game: laws.assert_completeness(COARSE, game, None, SAMPLE, play_of("image")[0], targets=0),
    "completeness, another start": lambda game: laws.assert_completeness(
        COARSE, game, None, SAMPLE, 3.0, gap=9.0, targets=0
    ),
    "symmetry": lambda game: laws.assert_symmetry(PIXELS, game, None, SAMPLE, (0, 2), targets=0),
    "symmetry of nothing": lambda game: laws.assert_symmetry(PIXELS, game, None, SAMPLE, (3, 3), targets=0),
    "dummy": lambda game: laws.assert_dummy(PIXELS, game, None, SAMPLE, 0, targets=0),
    "dummy within a wide error": lambda game: laws.assert_dummy(Vague, game, None, SAMPLE, 1),
    "linearity": lambda game: laws.assert_linearity(PIXELS, game, None, SAMPLE, (0, 1, 2), a=3, b=2),
    "batch size": lambda game: laws.assert_batch_invariance(Unstable, game, None, ["x", "y"]),
    "other samples": lambda game: laws.assert_batch_composition_invariance(Unstable, game, None, ["x", "y"]),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_law_is_noticed(law):
    with pytest.raises(AssertionError):
        BROKEN[law](laws.differentiable(play))
