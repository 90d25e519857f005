"""Methods against closed forms: linear models, exhaustive Shapley values, known variances."""

import functools
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from interpreto import (
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    Rise,
    Saliency,
    SmoothGrad,
    Sobol,
    SquareGrad,
    VarGrad,
    from_callables,
)
from tests import laws
from tests.models import Game, LinearImage, linear_text

LINEAR = {
    "Occlusion": Occlusion,
    "KernelShap": KernelShap,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": IntegratedGradients,
    "GradientShap": GradientShap,
}


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 8, 12, generator=generator)
    pixels = torch.randn(3, 8, 12, generator=generator)
    return weights, pixels


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_image_model_gives_w_times_x(name, image):
    weights, pixels = image
    method = LINEAR[name](LinearImage(weights), task="image-classification", patch_size=4)
    (output,) = method(pixels, targets=(0, 1))
    expected = (weights * pixels).sum(1).reshape(2, 2, 4, 3, 4).sum((2, 4))
    assert torch.allclose(output.attributions, expected, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "InputXGradient"])
def test_a_linear_image_model_gives_w_times_the_way_from_the_baseline(name, image):
    weights, pixels = image
    end = {"removal": 0.5} if name in ("Occlusion", "KernelShap") else {"baseline": 0.5}
    method = LINEAR[name](LinearImage(weights), task="image-classification", patch_size=4, **end)
    (output,) = method(pixels, targets=0)
    expected = (weights[0] * (pixels - 0.5)).sum(0).reshape(2, 4, 3, 4).sum((1, 3))
    assert torch.allclose(output.attributions[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_text_model_gives_w_times_x(name):
    model, tokenizer = linear_text()
    text = "the plot was not good"
    end = {"baseline": "[PAD]"} if name in ("IntegratedGradients", "GradientShap") else {}
    (output,) = LINEAR[name](model, tokenizer, task="text-classification", granularity="token", **end)(text, targets=1)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0, 1:-1]
    start = {"Occlusion": tokenizer.mask_token_id, "KernelShap": tokenizer.mask_token_id}.get(
        name, tokenizer.pad_token_id
    )
    with torch.no_grad():
        away = 0 if name == "InputXGradient" else model.words(torch.tensor(start))
        expected = (model.words(ids) - away) @ model.head.weight[1]
    assert torch.allclose(output.attributions[0], expected, atol=1e-5)


def test_lime_without_ridge_finds_the_slopes_of_a_linear_model(image):
    weights, pixels = image
    method = Lime(LinearImage(weights), task="image-classification", patch_size=4, ridge=0.0, n_samples=100)
    expected = (weights[0] * pixels).sum(0).reshape(2, 4, 3, 4).sum((1, 3))
    assert torch.allclose(method(pixels, targets=0)[0].attributions[0], expected, atol=1e-4)


@pytest.mark.parametrize(("kernel", "width"), [("euclidean", None), ("hamming", 0.4), ("cosine", None)])
def test_lime_equals_weighted_ridge_regression(kernel, width):
    from sklearn.linear_model import Ridge

    kept, values = [], []

    def scores(pixels):
        z = pixels.reshape(len(pixels), 4)
        kept.append(z.copy())
        values.append(np.sin(3 * z[:, 0]) * z[:, 1] + z[:, 2] * z[:, 3] + z[:, 3])
        return values[-1][:, None]

    method = Lime(from_callables(scores), granularity="pixel", n_samples=64, kernel=kernel, kernel_width=width)
    (output,) = method(np.ones((1, 1, 4), np.float32), targets=0)
    z, y = np.concatenate(kept), np.concatenate(values)
    hidden = 4 - z.sum(1)
    distance = {"euclidean": hidden**0.5, "hamming": hidden / 4, "cosine": 1 - (z.sum(1) / 4) ** 0.5}[kernel]
    width = width or {"euclidean": 1.5, "cosine": 0.25}[kernel]
    reference = Ridge(alpha=1.0).fit(z, y, sample_weight=np.exp(-((distance / width) ** 2)))
    assert np.allclose(output.attributions[0, 0], reference.coef_, atol=1e-5)


def brute_force_shapley(value, g):
    """Shapley values by definition: the mean contribution of a unit over all orders."""
    scores = np.zeros(g)
    for order in itertools.permutations(range(g)):
        present: frozenset[int] = frozenset()
        for unit in order:
            scores[unit] += value(present | {unit}) - value(present)
            present = present | {unit}
    return scores / math.factorial(g)


def table_game(g, seed):
    """A game with a random value for every coalition, as an image model whose pixels are the units."""
    values = np.random.default_rng(seed).normal(size=2**g)

    def scores(pixels):
        present = (pixels.reshape(len(pixels), g) > 0.5).astype(int)
        return values[present @ (1 << np.arange(g))][:, None]

    return scores, lambda present: values[sum(1 << unit for unit in present)]


def play(g, seed=0, **options):
    scores, value = table_game(g, seed)
    wrapped = from_callables(scores)
    (output,) = KernelShap(wrapped, granularity="pixel", **options)(np.ones((1, 1, g), np.float32), targets=0)
    return output, value


def assert_efficient_game(g, tolerance, n_samples):
    scores, value = table_game(g, 0)
    method = functools.partial(KernelShap, granularity="pixel", n_samples=n_samples)
    difference = value(frozenset(range(g))) - value(frozenset())
    ones = np.ones((1, 1, g), np.float32)
    return laws.assert_efficiency(method, from_callables(scores), None, ones, difference, tolerance, targets=0)


@pytest.mark.parametrize("g", [1, 2, 3, 6, 7])
def test_exact_kernel_shap_equals_brute_force(g):
    output, value = play(g)
    assert np.allclose(output.attributions[0, 0], brute_force_shapley(value, g), atol=1e-6)
    assert output.n_evaluations == 2**g
    assert torch.equal(output.standard_errors, torch.zeros_like(output.standard_errors))


def test_kernel_shap_is_efficient_also_when_it_samples():
    assert assert_efficient_game(12, 1e-5, n_samples=200).n_evaluations <= 200


def additive_and_pairs(g, seed=0):
    """A game of single units and pairs, whose Shapley values have a closed form."""
    rng = np.random.default_rng(seed)
    single, pairs = rng.normal(size=g), np.triu(rng.normal(size=(g, g)), 1)

    def scores(pixels):
        z = (pixels.reshape(len(pixels), g) > 0.5).astype(float)
        return (z @ single + ((z @ pairs) * z).sum(1))[:, None]

    return scores, single + (pairs.sum(0) + pairs.sum(1)) / 2


def test_sampled_kernel_shap_is_unbiased_and_knows_its_error():
    scores, _ = additive_and_pairs(11)
    cube = lambda pixels: scores(pixels) + 0.05 * scores(pixels) ** 3  # noqa: E731 higher orders, so that sampling errs
    image = np.ones((1, 1, 11), np.float32)
    (exact,) = KernelShap(from_callables(cube), granularity="pixel", n_samples=2**11)(image, targets=0)
    found = [
        KernelShap(from_callables(cube), granularity="pixel", n_samples=300, seed=s)(image, targets=0)[0]
        for s in range(60)
    ]
    estimates = torch.stack([output.attributions[0, 0] for output in found]).double()
    errors = estimates - exact.attributions[0, 0]
    spread = errors.std(0)
    # The error of the mean of 60 runs is within chance (|z| < 4 for each of 11 units).
    assert (errors.mean(0).abs() < 4 * spread / 60**0.5 + 1e-6).all()
    claimed = torch.stack([output.standard_errors[0, 0] for output in found]).square().mean(0).sqrt()
    assert 0.7 < float((claimed / spread).mean()) < 1.5


def test_kernel_shap_on_pairs_of_units_is_exact_when_it_samples():
    """Complementary pairs cancel the even part of a game, so that second-order games have no error."""
    scores, truth = additive_and_pairs(12)
    image = np.ones((1, 1, 12), np.float32)
    (output,) = KernelShap(from_callables(scores), granularity="pixel", n_samples=200)(image, targets=0)
    assert np.allclose(output.attributions[0, 0], truth, atol=1e-4)


def test_kernel_shap_laws_symmetry_dummy_linearity():
    def scores(pixels):
        a, b, c, _ = pixels.reshape(len(pixels), 4).T
        return np.stack([a * b + c, 2 * a * c, 3 * (a * b + c) - 4 * a * c], 1)

    wrapped = from_callables(scores)
    arguments = (functools.partial(KernelShap, granularity="pixel"), wrapped, None, np.ones((1, 1, 4), np.float32))
    output = laws.assert_linearity(*arguments, targets=(0, 1, 2), a=3, b=-2)
    assert torch.allclose(output.attributions[0, 0], torch.tensor([0.5, 0.5, 1.0, 0.0]), atol=1e-6)
    laws.assert_symmetry(*arguments, (0, 1), targets=0)
    laws.assert_dummy(*arguments, 3, targets=(0, 1, 2))


def test_kernel_shap_says_when_there_are_too_few_samples():
    with pytest.warns(UserWarning, match=r"n_samples=30 is fewer than two per unit \(20 units\).*n_samples >= 80"):
        assert_efficient_game(20, 1e-4, n_samples=30)


@pytest.mark.usefixtures("without_type_checks")
def test_sobol_indices_match_the_closed_form_of_a_known_function():
    """Ishigami's function of three uniform inputs; the fourth has no influence."""
    a, b = 7.0, 0.1

    def scores(pixels):
        x = np.pi * (2 * pixels.reshape(len(pixels), 4) - 1)
        return (np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0]))[:, None]

    first = 0.5 * (1 + b * np.pi**4 / 5) ** 2
    joint = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = a**2 / 8 + b * np.pi**4 / 5 + b**2 * np.pi**8 / 18 + 0.5
    image = np.ones((1, 2, 2), np.float32)
    options = {"granularity": "pixel", "n_samples": 2**13 * 6}
    (total,) = Sobol(from_callables(scores), **options)(image, targets=0)
    expected = np.array([first + joint, a**2 / 8, joint, 0]) / variance
    assert np.allclose(total.attributions.flatten(), expected, atol=0.01)
    (alone,) = Sobol(from_callables(scores), order="first", **options)(image, targets=0)
    assert np.allclose(alone.attributions.flatten(), np.array([first, a**2 / 8, 0, 0]) / variance, atol=0.02)
    assert (total.standard_errors < 0.02).all()


def test_rise_is_the_mean_over_masks_that_keep_a_unit():
    """A second derivation from the rows that the model received, for a 2 x 2 image whose pixels are the cells."""
    seen = []

    def scores(pixels):
        seen.append(pixels.reshape(len(pixels), 4).copy())
        return (pixels.reshape(len(pixels), 4) @ np.array([1.0, 2.0, 0.0, -1.0]) ** 2)[:, None]

    image = np.ones((1, 2, 2), np.float32)
    options = {"granularity": "pixel", "n_samples": 300, "grid_size": 2}
    (plain,) = Rise(from_callables(scores), centered=False, **options)(image, targets=0)
    kept = np.concatenate(seen)[1:].astype(float)
    values = kept @ np.array([1.0, 2.0, 0.0, -1.0]) ** 2
    expected = (kept * values[:, None]).sum(0) / kept.sum(0)
    assert np.allclose(plain.attributions.flatten(), expected, atol=1e-5)
    (centered,) = Rise(from_callables(scores), **options)(image, targets=0)
    assert np.allclose(centered.attributions.flatten(), expected - values.mean(), atol=1e-5)


@pytest.mark.parametrize("centered", [True, False])
def test_rise_knows_its_error(centered):
    weights = np.array([2.0, 0.0, -1.0, 0.5])

    def scores(pixels):
        return (pixels.reshape(len(pixels), 4) @ weights)[:, None]

    image = np.ones((1, 2, 2), np.float32)
    options = {"granularity": "pixel", "n_samples": 200, "grid_size": 2, "centered": centered}
    found = [Rise(from_callables(scores), seed=seed, **options)(image, targets=0)[0] for seed in range(60)]
    spread = torch.stack([output.attributions.flatten() for output in found]).std(0)
    claimed = torch.stack([output.standard_errors.flatten() for output in found]).mean(0)
    assert (claimed / spread > 0.7).all()
    assert (claimed / spread < 1.4).all()


def quadratic(means):
    """Scores of the means x of the four quarters: a quadratic and a product."""
    return torch.stack([means.square().sum(1), means[:, 0] * means[:, 1]], dim=1)


def test_integrated_gradients_of_a_quadratic_are_exact_with_two_nodes():
    pixels = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    means = torch.nn.functional.avg_pool2d(pixels, 2).flatten()
    method = functools.partial(IntegratedGradients, task="image-classification", patch_size=2, n_steps=2)
    difference = quadratic(means[None])[0]
    output = laws.assert_completeness(method, Game(quadratic), None, pixels, difference, targets=(0, 1))
    assert torch.allclose(output.attributions[0].flatten(), means.square(), atol=1e-6)
    product = float(means[0] * means[1]) / 2
    assert torch.allclose(output.attributions[1].flatten(), torch.tensor([product, product, 0, 0]), atol=1e-6)


@pytest.mark.parametrize("rule", ["trapezoid", "riemann-left", "riemann-right", "riemann-middle", "gauss-legendre"])
def test_every_rule_approaches_the_integral(rule):
    pixels = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    gaps = [
        float(
            IntegratedGradients(
                Game(lambda m: m.sum(1, keepdim=True) ** 4),
                task="image-classification",
                n_steps=n,
                rule=rule,
                patch_size=2,
            )(pixels)[0].completeness_gap.abs()
        )
        for n in (4, 64)
    ]
    assert gaps[1] < max(gaps[0] / 8, 1e-5)


def test_several_baselines_are_averaged():
    pixels = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    model, options = Game(quadratic), {"task": "image-classification", "patch_size": 2}
    value = quadratic(nn.functional.avg_pool2d(pixels, 2).reshape(1, 4))[0, 0]
    found = []
    for baseline, at_baseline in (([0.0, 1.0], 2.0), (0.0, 0.0), (1.0, 4.0)):
        method = functools.partial(IntegratedGradients, baseline=baseline, **options)
        arguments = (method, model, None, pixels, value - at_baseline)
        found.append(laws.assert_completeness(*arguments, tolerance=1e-5, gap=1e-5, targets=0).attributions)
    both, zero, one = found
    assert torch.allclose(both, (zero + one) / 2, atol=1e-6)


@pytest.mark.usefixtures("without_type_checks")
def test_smoothing_a_quadratic_has_the_moments_of_its_gradient():
    """The gradient of x^2 at x + e is 2 x + 2 e, whose mean, mean square and variance are known."""
    pixels = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    model = Game(lambda m: m[:, :1])
    model.forward = lambda p: (p**2).sum((1, 2, 3))[:, None]
    options = {
        "task": "image-classification",
        "granularity": "pixel",
        "noise_level": 0.1,
        "n_samples": 4000,
        "batch_size": 500,
        "reduction": "sum",
    }
    sigma = 0.1 * 2
    mean = SmoothGrad(model, **options)(pixels)[0]
    assert torch.allclose(mean.attributions[0], 2 * pixels[0], atol=0.04)
    square = SquareGrad(model, **options)(pixels)[0]
    assert torch.allclose(square.attributions[0], 4 * pixels[0] ** 2 + 4 * sigma**2, atol=0.08)
    variance = VarGrad(model, **options)(pixels)[0]
    assert torch.allclose(variance.attributions[0], torch.full((4, 4), 4 * sigma**2), atol=0.02)
    # The jackknife against theory: the standard error of a mean of 2 e is 2 sigma / sqrt(n).
    assert float(mean.standard_errors.mean()) == pytest.approx(2 * sigma / 4000**0.5, rel=0.25)


def test_without_noise_smoothing_does_nothing(image):
    weights, pixels = image
    options = {"task": "image-classification", "granularity": "pixel"}
    plain = Saliency(LinearImage(weights), **options)(pixels)[0]
    smooth = SmoothGrad(LinearImage(weights), noise_level=0.0, n_samples=3, **options)(pixels)[0]
    assert torch.allclose(plain.attributions, smooth.attributions)
    assert not VarGrad(LinearImage(weights), **options)(pixels)[0].attributions.any()


def test_warnings_are_not_raised_where_samples_suffice():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        play(6)
    assert not caught


@pytest.mark.filterwarnings("ignore:n_samples=")
def test_kernel_shap_on_thousands_of_units():
    """More units than evaluations: scores still sum to the total, and no number overflows."""
    weights = np.random.default_rng(0).normal(size=40 * 40)
    wrapped = from_callables(lambda pixels: (pixels.reshape(len(pixels), -1) @ weights)[:, None])
    method = functools.partial(KernelShap, granularity="pixel", n_samples=200)
    ones = np.ones((1, 40, 40), np.float32)
    output = laws.assert_efficiency(method, wrapped, None, ones, weights.sum(), 1e-2, targets=0)
    assert output.n_evaluations <= 200


@pytest.mark.parametrize(("g", "n_samples"), [(9, 100), (20, 512), (64, 512), (65, 512), (196, 512), (50176, 512)])
def test_coalitions_use_the_rows_and_all_sizes_fairly(g, n_samples):
    from interpreto.attributions.perturbations.mask_generators.coalitions import shares

    taken = shares(g, n_samples)
    assert n_samples - 4 <= 2 + 2 * sum(taken.values()) <= n_samples
    small, large = (sum(taken[s] for s in part) for part in (range(1, g // 4 + 1), range(g // 4 + 1, g // 2 + 1)))
    assert small > 0.2 * large or g < 20


def test_smoothing_a_random_method_draws_numbers_of_its_own():
    """Without noise, the variance over copies is that of the random method: every copy needs its own seed."""
    pixels = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    of = functools.partial(GradientShap, n_samples=2)
    options = {"task": "image-classification", "patch_size": 2, "n_samples": 20, "noise_level": 0.0}
    (output,) = VarGrad(Game(lambda m: m[:, :1] ** 3), base_method=of, **options)(pixels)
    assert float(output.attributions[0, 0, 0]) > 1e-6


def test_functions_may_change_their_argument():
    def scores(pixels):
        pixels -= 0.5
        return pixels.reshape(len(pixels), -1) * 2

    image = np.full((1, 1, 3), 0.75, np.float32)
    (output,) = Occlusion(from_callables(scores), granularity="pixel")(image, targets=0)
    assert torch.allclose(output.attributions, torch.tensor([[[1.5, 0, 0]]]))
    assert (image == 0.75).all()
