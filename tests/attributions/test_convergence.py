"""Attributions that miss the sum that their method promises are told of, with what to do."""

import warnings
from functools import partial

import numpy as np
import pytest

from interpreto import BlurIG, GuidedIG, IntegratedGradients, Occlusion, compare, from_callables
from interpreto.attributions.convergence import relative_gap
from interpreto.errors import ConvergenceWarning
from tests.generators import generator

POWER = 6


def model(power=POWER):
    """f(x) = m(x)^6 for the mean m: from 0 on, a rule of n nodes gives f(x) times the sum of w_k 6 a_k^5."""

    def scores(images):
        return (images.mean((1, 2, 3)) ** power)[:, None]

    def gradients(images, target):
        slope = power * images.mean((1, 2, 3), keepdims=True) ** (power - 1)
        return np.broadcast_to(slope / images[0].size, images.shape).astype(np.float32)

    return from_callables(scores, gradients=gradients)


def gap_of_nodes(n_steps):
    """The share of the promised sum that the Gauss-Legendre rule misses."""
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    return abs(1 - float((weights / 2 * POWER * ((nodes + 1) / 2) ** (POWER - 1)).sum()))


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0.2, 0.9, (8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_a_warning_says_the_gap_and_what_to_do(image, n_steps):
    explain = IntegratedGradients(model(), n_steps=n_steps, baseline="black", granularity="pixel")
    expected = gap_of_nodes(n_steps)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (output,) = explain(image)
    assert float(relative_gap(output)) == pytest.approx(expected, abs=1e-3)
    found = [str(one.message) for one in told if one.category is ConvergenceWarning]
    if expected <= 0.05:
        assert not found
        return
    (message,) = found
    assert f"IntegratedGradients did not converge with n_steps={n_steps} for 1 of 1 samples" in message
    assert f"a gap of {100 * expected:.0f} %" in message
    assert f"f(x) - f(x') = {float(output.scores):.4g}" in message
    assert "Use a larger n_steps=, another baseline=, or" in message


def test_one_warning_of_a_call_is_about_the_worst_sample(image):
    with pytest.warns(ConvergenceWarning, match=r"for 2 of 3 samples .worst: sample \d") as told:
        IntegratedGradients(model(), n_steps=1, baseline="black")([image, image / 2, np.zeros_like(image)])
    assert len(told) == 1
    with pytest.warns(ConvergenceWarning, match="for 2 of 2 samples") as told:
        list(IntegratedGradients(model(), n_steps=1, baseline="black").stream(iter([image, image / 2])))
    assert len(told) == 1


@pytest.mark.parametrize(("method", "effort"), [(GuidedIG, "n_steps=2"), (BlurIG, "n_steps=2")])
def test_every_method_that_promises_a_sum_is_looked_at(image, method, effort):
    with pytest.warns(ConvergenceWarning, match=f"{method.__name__} did not converge with {effort}"):
        method(model(), n_steps=2)(image)


def test_methods_without_a_promise_and_negligible_gaps_are_silent(image):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Occlusion(model())(image)
        IntegratedGradients(model(), n_steps=3, baseline="black")(image)
        # Where the score does not change, no gap of rounding is a large one.
        IntegratedGradients(model(), n_steps=4, baseline=image)(image)
    assert not told


def test_a_comparison_warns_once_about_all_its_samples(image):
    """Samples are explained in portions of one; on a black image the path has no length."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        compare(
            model(),
            None,
            [np.zeros_like(image), image, image],
            methods={"IG": partial(IntegratedGradients, n_steps=1, baseline="black")},
            metrics="entropy",
            granularity="pixel",
            batch_size=1,
            on_error="record",
        )
    (found,) = [one for one in told if one.category is ConvergenceWarning]
    assert "for 2 of 3 samples (worst: sample 1, target" in str(found.message)


@pytest.mark.parametrize("prepend_bos", [False, True])
def test_language_models_are_advised_to_put_a_token_first(prepend_bos):
    """Where the path moves the first token it moves the attention sink."""
    model, tokenizer = generator("gpt2")
    explain = IntegratedGradients(model, tokenizer, n_steps=1, baseline="zeros", prepend_bos=prepend_bos)
    with pytest.warns(ConvergenceWarning, match="or Occlusion or KernelShap") as told:
        explain("the film was", " very good")
    (message,) = (str(one.message) for one in told if one.category is ConvergenceWarning)
    assert ("prepend_bos=True" in message) == (not prepend_bos)
