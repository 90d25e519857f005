"""Warnings for attributions that miss the sum that their method promises, with advice."""

import warnings
from functools import partial

import numpy as np
import pytest

from interpreto import BlurIG, GuidedIG, IntegratedGradients, Occlusion, compare, from_callables
from interpreto.attributions.convergence import relative_gap
from interpreto.errors import ConvergenceWarning
from tests.causal_lms import causal_lm

POWER = 6


def model(power=POWER):
    """f(x) = m(x)^6 for the mean m: from the baseline 0, a rule of n nodes gives f(x) times the sum of w_k 6 a_k^5."""

    def scores(images):
        return (images.mean((1, 2, 3)) ** power)[:, None]

    def gradients(images, target):
        slope = power * images.mean((1, 2, 3), keepdims=True) ** (power - 1)
        return np.broadcast_to(slope / images[0].size, images.shape).astype(np.float32)

    return from_callables(scores, gradients=gradients)


def gap_of_nodes(n_steps):
    """The relative completeness gap of the Gauss-Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    return abs(1 - float((weights / 2 * POWER * ((nodes + 1) / 2) ** (POWER - 1)).sum()))


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0.2, 0.9, (8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_the_warning_has_the_gap_and_advice(image, n_steps):
    explain = IntegratedGradients(model(), n_steps=n_steps, baseline="black", granularity="pixel")
    expected = gap_of_nodes(n_steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (output,) = explain(image)
    assert float(relative_gap(output)) == pytest.approx(expected, abs=1e-3)
    found = [str(one.message) for one in caught if one.category is ConvergenceWarning]
    if expected <= 0.05:
        assert not found
        return
    (message,) = found
    assert f"IntegratedGradients did not converge with n_steps={n_steps} for 1 of 1 samples" in message
    assert f"a gap of {100 * expected:.0f} %" in message
    assert f"f(x) - f(x') = {float(output.scores):.4g}" in message
    assert "Use a larger n_steps=, another baseline=, or" in message


def test_one_warning_of_a_call_is_about_the_worst_sample(image):
    with pytest.warns(ConvergenceWarning, match=r"for 2 of 3 samples .worst: sample \d") as caught:
        IntegratedGradients(model(), n_steps=1, baseline="black")([image, image / 2, np.zeros_like(image)])
    assert len(caught) == 1
    with pytest.warns(ConvergenceWarning, match="for 2 of 2 samples") as caught:
        list(IntegratedGradients(model(), n_steps=1, baseline="black").stream(iter([image, image / 2])))
    assert len(caught) == 1


@pytest.mark.parametrize(("method", "effort"), [(GuidedIG, "n_steps=2"), (BlurIG, "n_steps=2")])
def test_every_method_that_promises_a_sum_is_checked(image, method, effort):
    with pytest.warns(ConvergenceWarning, match=f"{method.__name__} did not converge with {effort}"):
        method(model(), n_steps=2)(image)


def test_methods_without_a_promise_and_negligible_gaps_are_silent(image):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Occlusion(model())(image)
        IntegratedGradients(model(), n_steps=3, baseline="black")(image)
        # If the score does not change, a gap from rounding must not count as large.
        IntegratedGradients(model(), n_steps=4, baseline=image)(image)
    assert not caught


def test_a_comparison_warns_once_about_all_its_samples(image):
    """Samples are explained one per batch; on a black image the path has length zero."""
    with warnings.catch_warnings(record=True) as caught:
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
    (found,) = [one for one in caught if one.category is ConvergenceWarning]
    assert "for 2 of 3 samples (worst: sample 1, target" in str(found.message)


@pytest.mark.parametrize("prepend_bos", [False, True])
def test_language_models_are_advised_to_put_a_token_first(prepend_bos):
    """A path that changes the first token changes the attention sink."""
    model, tokenizer = causal_lm("gpt2")
    explain = IntegratedGradients(model, tokenizer, n_steps=1, baseline="zeros", prepend_bos=prepend_bos)
    with pytest.warns(ConvergenceWarning, match="or Occlusion or KernelShap") as caught:
        explain("the film was", " very good")
    (message,) = (str(one.message) for one in caught if one.category is ConvergenceWarning)
    assert ("prepend_bos=True" in message) == (not prepend_bos)
