"""The saliency methods of Google's PAIR: against their package, by hand, and by their properties."""

import warnings
from functools import cache, partial

import numpy as np
import pytest
import torch
from PIL import Image
from saliency.core import blur_ig, guided_ig, xrai
from saliency.core.base import INPUT_OUTPUT_GRADIENTS
from saliency.core.occlusion import Occlusion as PairOcclusion
from scipy import ndimage
from skimage import data
from torch import nn
from torch.nn import functional

from interpreto import (
    XRAI,
    BlurIG,
    Contrast,
    GradCam,
    Granularity,
    GuidedBackprop,
    GuidedIG,
    IntegratedGradients,
    InterpretoError,
    KernelShap,
    Occlusion,
    PointingGame,
    Saliency,
    SmoothGrad,
    SquareGrad,
    VarGrad,
    compare,
    from_callables,
    zoo,
)
from interpreto.attributions.granularity.regions import dilated, segmented
from interpreto.attributions.perturbations.paths.blur_path import blurred
from interpreto.errors import InputError, ModelError, OptionError, UnsupportedError
from tests.conftest import reduced
from tests.models import image_model, setting, text_model


class Conv(nn.Module):
    """Convolutions, ReLU, a mean and a head."""

    def __init__(self, inplace=False, activation=None):
        nn.Module.__init__(self)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.act = activation or nn.ReLU(inplace=inplace)
        self.head = nn.Linear(8, 4)

    def forward(self, pixels):
        return self.head(self.act(self.second(self.act(self.first(pixels)))).mean((2, 3)))


@cache
def conv(**options):
    torch.manual_seed(3)
    return Conv(**options).eval()


TASK = {"task": "image-classification"}
PIXELS = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(1))


def calls(target, model=None):
    """The model as a function in the form that PAIR's package calls."""

    def run(values, call_model_args=None, expected_keys=None):
        pixels = torch.from_numpy(np.moveaxis(values, -1, 1).astype(np.float32)).requires_grad_()
        scores = (model or conv())(pixels)[:, target]
        if expected_keys and expected_keys[0] == INPUT_OUTPUT_GRADIENTS:
            (slopes,) = torch.autograd.grad(scores.sum(), pixels)
            return {INPUT_OUTPUT_GRADIENTS: np.moveaxis(slopes.numpy(), 1, -1).astype(np.float64)}
        return {expected_keys[0]: scores.detach().numpy()}

    return run


def array(pixels=PIXELS):
    return np.moveaxis(pixels.double().numpy(), 0, -1)


# Blur


@pytest.mark.parametrize("axes", [(1, 2), (0,)])
def test_blurs_are_those_of_scipy(axes):
    sigmas = [0.0, 0.1, 0.7, 3.0, 40.0]
    found, slopes = blurred(PIXELS, torch.tensor(sigmas, dtype=torch.float64), axes)
    for sigma, one, slope in zip(sigmas, found, slopes, strict=True):

        def blur(width):
            widths = [width if axis in axes else 0 for axis in range(3)]
            return (
                PIXELS.double().numpy()
                if not width
                else ndimage.gaussian_filter(PIXELS.double(), widths, mode="constant")
            )

        assert np.allclose(one.numpy(), blur(sigma), atol=1e-6)
        assert np.allclose(slope.numpy(), (blur(sigma + 0.01) - blur(sigma)) / 0.01, atol=1e-5)


def test_blur_ig_gives_the_published_numbers():
    method = BlurIG(conv(), n_steps=12, max_sigma=6.0, granularity="pixel", **TASK)
    (output,) = method(PIXELS, targets=2)
    expected = blur_ig.BlurIG().GetMask(array(), calls(2), max_sigma=6, steps=12)
    assert np.allclose(output.attributions[0], expected.sum(-1), atol=1e-6)


def test_paths_sum_to_the_difference():
    model, processor = zoo.load("shapes-vit")
    for example in zoo.samples("shapes-vit", 4):
        (output,) = BlurIG(model, processor, n_steps=100)(example.input)
        with torch.no_grad():
            pixels = processor(example.input, return_tensors="pt")["pixel_values"]
            away = ndimage.gaussian_filter(pixels[0].double().numpy(), [0, 50, 50], mode="constant")
            blank = model(pixel_values=torch.from_numpy(away)[None].float()).logits[0, output.targets[0]]
        difference = float(output.scores[0] - blank)
        assert abs(float(output.attributions.sum()) - difference) <= 0.02 * abs(difference)
        assert float(output.completeness_gap) == pytest.approx(difference - float(output.attributions.sum()), abs=1e-3)
        with torch.no_grad():
            grey = model(pixel_values=torch.zeros_like(pixels)).logits[0, output.targets[0]]
        (straight,) = IntegratedGradients(model, processor, n_steps=100)(example.input)
        difference = float(straight.scores[0] - grey)
        assert abs(float(straight.attributions.sum()) - difference) <= 0.02 * abs(difference)


def test_texts_are_blurred_along_their_tokens():
    model, words = text_model("bert")
    (output,) = BlurIG(model, words, n_steps=200, max_sigma=8.0, rule="gauss-legendre")("The plot was not good.", 1)
    assert abs(float(output.completeness_gap)) < 0.05 * max(1.0, abs(float(output.scores)))


# Guided IG


def published_guided_ig(target, start=None, model=None, **options):
    """PAIR's guided IG, with an argument of `quantile` renamed as in current NumPy."""
    old = np.quantile

    def quantile(values, share, interpolation):
        return old(values, share, method=interpolation)

    np.quantile = quantile
    try:
        return guided_ig.GuidedIG().GetMask(array(), calls(target, model), x_baseline=start, **options)
    finally:
        np.quantile = old


@pytest.mark.parametrize(("fraction", "max_dist"), [(0.25, 0.02), (0.1, 0.3), (0.5, 1.0), (1.0, 0.1)])
def test_guided_ig_gives_the_published_numbers(fraction, max_dist):
    options = {"fraction": fraction, "max_dist": max_dist}
    (output,) = GuidedIG(conv(), n_steps=15, granularity="pixel", **options, **TASK)(PIXELS, targets=(1, 3))
    for row, target in enumerate((1, 3)):
        expected = published_guided_ig(target, x_steps=15, **options).sum(-1)
        assert np.allclose(output.attributions[row], expected, atol=1e-5)


def test_guided_ig_without_freedom_is_integrated_gradients():
    (guided,) = GuidedIG(conv(), n_steps=20, max_dist=0.0, **TASK)(PIXELS, targets=(0, 1))
    (straight,) = IntegratedGradients(conv(), n_steps=20, rule="riemann-left", **TASK)(PIXELS, targets=(0, 1))
    assert torch.allclose(guided.attributions, straight.attributions, atol=1e-6)


def test_guided_ig_sums_to_the_difference_and_stays_in_its_band():
    model, processor = zoo.load("shapes-vit")
    seen = []

    def scores(arrays):
        with torch.no_grad():
            return model(pixel_values=torch.from_numpy(arrays)).logits.numpy()

    def gradients(arrays, target):
        seen.append(arrays.copy())
        pixels = torch.from_numpy(arrays).requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(model(pixel_values=pixels).logits[:, target].sum(), pixels)[0].numpy()

    pixels = processor(zoo.samples("shapes-vit", 1)[0].input, return_tensors="pt")["pixel_values"][0]
    (output,) = GuidedIG(from_callables(scores, gradients), n_steps=200, max_dist=0.05)(pixels)
    with torch.no_grad():
        blank = model(pixel_values=torch.zeros_like(pixels)[None]).logits[0, output.targets[0]]
    difference = float(output.scores[0] - blank)
    assert abs(float(output.attributions.sum()) - difference) <= 0.02 * abs(difference)
    whole = pixels.abs().sum()
    assert len(seen) == 200
    for step, point in enumerate(seen):
        along = torch.from_numpy(point[0]) / pixels
        straight = step / 200
        assert along.min() >= straight - 0.05 - 1e-5
        assert along.max() <= straight + 0.05 + 1e-5
        assert float((pixels - torch.from_numpy(point[0])).abs().sum() / whole) == pytest.approx(1 - straight, abs=1e-5)


def test_guided_ig_of_several_baselines_is_their_mean():
    run = partial(GuidedIG, conv(), n_steps=6, **TASK)
    (both,) = run(baseline=[0.5, "zeros"])(PIXELS, 1)
    parts = [run(baseline=one)(PIXELS, 1)[0].attributions for one in (0.5, "zeros")]
    assert torch.allclose(both.attributions, sum(parts) / 2, atol=1e-6)


def test_guided_ig_moves_texts_too():
    model, words = text_model("bert")
    (output,) = GuidedIG(model, words, n_steps=100)("The plot was not good.", targets=(0, 1))
    assert output.completeness_gap.abs().max() < 0.1 * output.scores.abs().max().clamp(min=1)


# Guided backpropagation


def guided_by_hand(model, pixels, target):
    """Guided backpropagation through a network of two convolutions, setting negative gradients to 0 at each ReLU."""
    with torch.no_grad():
        one = model.first(pixels)
        two = model.second(one.relu())
        slope = model.head.weight[target][None, :, None, None].expand_as(two) / two[0, 0].numel()
        slope = slope.clamp(min=0) * (two > 0)
        slope = functional.conv_transpose2d(slope, model.second.weight, stride=2, padding=1, output_padding=1)
        slope = slope.clamp(min=0) * (one > 0)
        return functional.conv_transpose2d(slope, model.first.weight, padding=1)[0]


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backprop_by_hand(inplace):
    model = conv(inplace=inplace)
    (output,) = GuidedBackprop(model, granularity="pixel", reduction="sum", **TASK)(PIXELS, targets=(0, 2))
    for row, target in enumerate((0, 2)):
        assert torch.allclose(output.attributions[row], guided_by_hand(model, PIXELS[None], target).sum(0), atol=1e-6)
    (plain,) = Saliency(model, granularity="pixel", reduction="sum", **TASK)(PIXELS, targets=(0, 2))
    assert not torch.allclose(plain.attributions, output.attributions, atol=1e-3)
    assert not any(part._forward_hooks for part in model.modules())


def test_guided_backprop_through_sums_and_reused_activations():
    class Residual(nn.Module):
        def __init__(self):
            nn.Module.__init__(self)
            self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

        def forward(self, pixels):
            kept = self.act(self.conv(pixels))
            return self.act(self.conv(kept) + kept).mean((2, 3))

    torch.manual_seed(0)
    model = Residual().eval()
    (output,) = GuidedBackprop(model, granularity="pixel", reduction="sum", **TASK)(PIXELS, targets=1)
    with torch.no_grad():
        weight = model.conv.weight[..., 0, 0]
        kept = model.conv(PIXELS[None]).relu()
        last = model.conv(kept) + kept
        slope = torch.zeros_like(last)
        slope[:, 1] = 1 / last[0, 0].numel()
        slope = slope * (last > 0)
        slope = slope + torch.einsum("pchw,cd->pdhw", slope, weight)
        slope = slope.clamp(min=0) * (kept > 0)
        expected = torch.einsum("pchw,cd->pdhw", slope, weight)[0].sum(0)
    assert torch.allclose(output.attributions[0], expected, atol=1e-7)


def test_guided_backprop_names_the_activations_it_changes():
    with pytest.warns(UserWarning, match="meant for ReLU; Conv uses gelu"):
        GuidedBackprop(conv(activation=nn.GELU()), **TASK)(PIXELS)
    with pytest.raises(UnsupportedError, match="no ReLU"):
        GuidedBackprop(conv(activation=nn.Identity()), **TASK)(PIXELS)
    with pytest.raises(UnsupportedError, match="from_callables"):
        GuidedBackprop(from_callables(lambda a: a.mean((2, 3)), lambda a, t: a))


def test_activations_written_out_by_a_library_are_found():
    """Quick GELU is written as a product with a sigmoid, not as an activation function of PyTorch."""
    from transformers.activations import QuickGELUActivation

    model = conv(activation=QuickGELUActivation())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (output,) = GuidedBackprop(model, **TASK)(PIXELS, 1)
    assert "quickgelu" in str(caught[0].message)
    (plain,) = Saliency(model, **TASK)(PIXELS, 1)
    assert not torch.allclose(plain.attributions, output.attributions, atol=1e-4)


# XRAI


@cache
def photograph(size):
    """A photograph as the pixel values that a model reads, and attributions of its pixels."""
    shown = Image.fromarray(data.astronaut()).resize((size[1], size[0]))
    values = np.asarray(shown, np.float32) / 127.5 - 1
    rough = np.random.default_rng(0).normal(size=(*size, 3))
    return values, ndimage.gaussian_filter(rough, (3, 3, 0)).astype(np.float64)


def ranked(values, base, **options):
    """The maps of one image by this package and by PAIR's."""
    theirs = {name: value for name, value in options.items() if name != "segments"}
    asked = xrai.XRAIParameters(return_xrai_segments=True, **theirs)
    masks = options.get("segments")
    run = xrai.XRAI().GetMaskWithDetails(values, None, base_attribution=base, segments=masks, extra_parameters=asked)
    model = from_callables(lambda arrays: arrays.mean((2, 3)))
    method = XRAI(model, base_attribution=np.moveaxis(base, -1, 0), **options)
    (output,) = method(np.moveaxis(values, -1, 0), targets=0)
    return output, run


@pytest.mark.parametrize("size", [(224, 224), (120, 200), (64, 64)])
@pytest.mark.parametrize("algorithm", ["full", "fast"])
def test_xrai_gives_the_published_map(algorithm, size):
    output, expected = ranked(*photograph(size), algorithm=algorithm)
    assert np.abs(output.attributions[0].numpy() - expected.attribution_mask).max() < 1e-6
    assert np.array_equal(output.segments[0].numpy(), expected.segments)
    assert output.granularity == Granularity.PIXEL


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_xrai_stops_when_enough_is_covered(share):
    output, expected = ranked(*photograph((120, 200)), area_threshold=share)
    assert np.abs(output.attributions[0].numpy() - expected.attribution_mask).max() < 1e-6
    # The remaining pixels are one segment, the last one.
    left = output.segments[0] == output.segments.max()
    assert float(left.float().mean()) <= 1 - share
    assert len(output.attributions[0][left].unique()) == 1


def test_xrai_ranks_own_segments():
    values, base = photograph((120, 200))
    labels = np.arange(120)[:, None] // 40 * 4 + np.arange(200) // 50
    masks = [labels == label for label in range(12)]
    output, expected = ranked(values, base, segments=masks)
    assert np.abs(output.attributions[0].numpy() - expected.attribution_mask).max() < 1e-6
    model = from_callables(lambda arrays: arrays.mean((2, 3)))
    shown = []

    def cut(image):
        shown.append(image)
        return labels + 100

    for given in (labels, torch.from_numpy(labels), np.stack(masks), cut):
        (same,) = XRAI(model, base_attribution=base, segments=given)(np.moveaxis(values, -1, 0), targets=0)
        assert torch.equal(same.attributions, output.attributions)
        assert torch.equal(same.segments, output.segments)
    assert shown[0].shape == (120, 200, 3)
    assert 0 <= shown[0].min() < shown[0].max() <= 1


def test_xrai_covers_an_image_once_in_the_order_of_its_gains():
    model, processor = zoo.load("shapes-vit")
    (output,) = XRAI(model, processor, granularity="pixel")(zoo.samples("shapes-vit", 1)[0].input, targets=(0, 1))
    for gains, ranks in zip(output.attributions, output.segments, strict=True):
        assert ranks.min() == 1
        assert torch.equal(ranks.unique(), torch.arange(1, int(ranks.max()) + 1))
        levels = [gains[ranks == rank].unique() for rank in ranks.unique()]
        assert all(len(level) == 1 for level in levels)
        chosen = torch.cat(levels)[:-1]
        assert torch.equal(chosen, chosen.sort(descending=True).values)


def test_xrai_takes_any_method_as_its_base():
    """Each base method run separately: its attributions per pixel, ranked with the same segments."""
    model, processor = zoo.load("shapes-vit")
    shown = zoo.samples("shapes-vit", 1)[0].input
    pixels = processor(shown, return_tensors="pt")["pixel_values"]
    run = partial(XRAI, model, processor, granularity="pixel")
    (default,) = run()(shown)
    target = default.targets[0]
    parts = []
    for level in (-1.0, 1.0):
        places, weights = np.polynomial.legendre.leggauss(32)
        total = torch.zeros_like(pixels)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            at = (level + place * (pixels - level)).float().requires_grad_()
            total += weight * torch.autograd.grad(model(pixel_values=at).logits[0, target], at)[0]
        parts.append(total * (pixels - level))
    (expected,) = run(base_attribution=((parts[0] + parts[1]) / 2)[0])(shown)
    assert torch.allclose(default.attributions, expected.attributions, atol=1e-5)
    for base, fine in ((partial(KernelShap, n_samples=200), {}), (GradCam, {"granularity": "pixel"})):
        (own,) = base(model, processor, **fine)(shown)
        found = own.attributions[0] if fine else own.attributions[0].repeat_interleave(8, 0).repeat_interleave(8, 1)
        (expected,) = run(base_attribution=found)(shown)
        (output,) = run(base_attribution=base)(shown)
        assert torch.allclose(output.attributions, expected.attributions, atol=1e-6)
    (smooth,) = run(base_attribution=partial(SmoothGrad, n_samples=2))(shown)
    slopes = []
    for one in copies(pixels[0], 2, 0.15):
        at = one[None].requires_grad_()
        slopes.append(torch.autograd.grad(model(pixel_values=at).logits[0, target], at)[0][0])
    (expected,) = run(base_attribution=sum(slopes) / 2)(shown)
    assert torch.allclose(smooth.attributions, expected.attributions, atol=1e-5)


def test_xrai_finds_the_decisive_object():
    """Pointing game on held-out scenes, as the docs state it."""
    model, processor = zoo.load("shapes-vit")
    examples = zoo.samples("shapes-vit", reduced(60, least=20))
    outputs = XRAI(model, processor)([example.input for example in examples])
    measured = PointingGame().evaluate(outputs, [example.truth for example in examples])
    assert measured.mean >= 0.9


def test_regions_grow_by_disks():
    rng = np.random.default_rng(0)
    for radius in (0, 1, 3, 5):
        mask = rng.random((23, 17)) > 0.97
        down, across = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disk = down**2 + across**2 <= radius**2
        assert np.array_equal(dilated(mask, radius), ndimage.binary_dilation(mask, disk))


# Sliding windows


def windows_by_hand(model, pixels, target, window, stride, summed):
    with torch.no_grad():
        base = model(pixels[None])[0, target]
        total, count = torch.zeros(pixels.shape[1:]), torch.zeros(pixels.shape[1:])
        tall, wide = window
        # Windows start a stride apart until the border is reached, and are clipped there.
        ends = [extent - reach + by for extent, reach, by in zip(pixels.shape[1:], window, stride, strict=True)]
        for top in range(0, ends[0], stride[0]):
            for left in range(0, ends[1], stride[1]):
                changed = pixels.clone()
                changed[:, top : top + tall, left : left + wide] = 0
                drop = base - model(changed[None])[0, target]
                total[top : top + tall, left : left + wide] += drop
                count[top : top + tall, left : left + wide] += 1
    return total if summed else total / count.clamp(min=1)


@pytest.mark.parametrize(
    ("window", "stride"), [((5, 5), (3, 3)), ((4, 9), (4, 2)), ((20, 24), (1, 1)), ((1, 3), (7, 5))]
)
@pytest.mark.parametrize("summed", [False, True])
def test_windows_slide_over_images(window, stride, summed):
    method = Occlusion(conv(), window=window, stride=stride, overlap="sum" if summed else "mean", **TASK)
    (output,) = method(PIXELS, targets=1)
    assert torch.allclose(output.attributions[0], windows_by_hand(conv(), PIXELS, 1, window, stride, summed), atol=1e-5)
    assert output.granularity == Granularity.PIXEL


def test_summed_windows_are_the_published_numbers():
    """PAIR's loop ends one window before the border, so the missing window is taken from our attributions."""
    (output,) = Occlusion(conv(), window=6, overlap="sum", **TASK)(PIXELS, targets=2)
    expected = PairOcclusion().GetMask(array().astype(np.float32), calls(2), size=6, value=0)
    # PAIR has no windows that touch the lower or right border: compare where none of ours reaches.
    assert np.allclose(output.attributions[0, :14, :18], expected[:14, :18].mean(-1), atol=1e-4)


def test_windows_slide_over_words():
    model, words = text_model("bert")
    text = "A truly charming film, and we saw it twice!"
    (output,) = Occlusion(model, words, window=3, stride=2)(text, 1)
    count = output.attributions.shape[1]
    assert output.n_evaluations == 1 + len({*range(0, count - 3, 2), count - 3})
    (alone,) = Occlusion(model, words)(text, 1)
    (one,) = Occlusion(model, words, window=1)(text, 1)
    assert torch.allclose(alone.attributions, one.attributions, atol=1e-6)


# Smoothing


STRAIGHT_XRAI = partial(XRAI, base_attribution=partial(IntegratedGradients, n_steps=4))
"""Without a processor, black and white are derived from the pixel values, which noise changes."""


def copies(pixels, count, noise, seed=0):
    """The noisy copies that a smoothed method explains."""
    rng = torch.Generator().manual_seed(seed)
    sigma = noise * (pixels.max() - pixels.min())
    return [pixels + sigma * torch.randn(pixels.shape, generator=rng) for _ in range(count)]


@pytest.mark.parametrize(
    "base",
    [GradCam, partial(GuidedIG, n_steps=4), STRAIGHT_XRAI, GuidedBackprop, partial(BlurIG, n_steps=3)],
)
def test_smoothing_wraps_anything(base):
    options = {"granularity": "pixel", **TASK}
    (output,) = SmoothGrad(conv(), base_method=base, n_samples=3, noise_level=0.1, **options)(PIXELS, 1)
    each = [base(conv(), **options)(one, 1)[0].attributions for one in copies(PIXELS, 3, 0.1)]
    if base is GuidedBackprop:
        # The norm is taken after the mean over copies.
        each = [base(conv(), reduction="sum", **options)(one, 1)[0].attributions for one in copies(PIXELS, 3, 0.1)]
        (output,) = SmoothGrad(conv(), base_method=base, n_samples=3, noise_level=0.1, reduction="sum", **options)(
            PIXELS, 1
        )
    assert torch.allclose(output.attributions, sum(each) / 3, atol=1e-5)


@pytest.mark.parametrize("method", [SquareGrad, VarGrad])
@pytest.mark.parametrize("base", [GradCam, STRAIGHT_XRAI])
def test_maps_without_channels_vary_too(method, base):
    (output,) = method(conv(), base_method=base, n_samples=4, noise_level=0.1, granularity="pixel", **TASK)(PIXELS, 1)
    each = torch.stack(
        [base(conv(), granularity="pixel", **TASK)(one, 1)[0].attributions for one in copies(PIXELS, 4, 0.1)]
    )
    expected = each.square().mean(0) if method is SquareGrad else each.var(0, correction=0)
    assert torch.allclose(output.attributions, expected, atol=1e-5)


def test_a_smoothed_map_has_the_grid_of_its_layer():
    (output,) = SmoothGrad(conv(), base_method=GradCam, n_samples=2, **TASK)(PIXELS)
    (plain,) = GradCam(conv(), **TASK)(PIXELS)
    assert output.attributions.shape == plain.attributions.shape == (1, 10, 12)


# Functions of other frameworks


def features(arrays, target):
    """The features and gradients that Grad-CAM needs, channels last."""
    pixels = torch.from_numpy(np.moveaxis(arrays, -1, 1).copy())
    with torch.enable_grad():
        hidden = conv().act(conv().second(conv().act(conv().first(pixels)))).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(conv().head(hidden.mean((2, 3)))[:, target].sum(), hidden)
    return tuple(np.moveaxis(one.detach().numpy(), 1, -1) for one in (hidden, slopes))


def last_scores(arrays):
    with torch.no_grad():
        return conv()(torch.from_numpy(np.moveaxis(arrays, -1, 1).copy())).numpy()


def test_grad_cam_of_functions():
    model = from_callables(last_scores, features=features, layout="n h w c")
    image = np.moveaxis(PIXELS.numpy(), 0, -1)
    targets = (1, Contrast(0, 2))
    (output,) = GradCam(model)(image, targets)
    (expected,) = GradCam(conv(), **TASK)(PIXELS, targets)
    assert torch.allclose(output.attributions, expected.attributions, atol=1e-6)
    (smoothed,) = SmoothGrad(model, base_method=GradCam, n_samples=3)(image, targets)
    assert smoothed.attributions.shape == output.attributions.shape
    with pytest.raises(OptionError, match="leave layer= out"):
        GradCam(model, layer="layer4")(image)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda a, t: np.zeros((1, 4, 4, 2)), "two arrays"),
        (lambda a, t: (np.zeros((4, 4)), np.zeros((4, 4))), r"shape \(1, 'h', 'w', 'c'\); it returned \(4, 4\)"),
        (lambda a, t: (np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4, 3))), r"\(1, 4, 4, 2\); it returned \(1, 4, 4, 3\)"),
        (lambda a, t: (np.full((1, 4, 4, 2), np.nan), np.zeros((1, 4, 4, 2))), "NaN"),
        (lambda a, t: (np.zeros((1, 4, 4, 2), complex), np.zeros((1, 4, 4, 2))), "real numbers"),
    ],
)
def test_features_are_checked(found, message):
    model = from_callables(last_scores, features=found, layout="n h w c")
    with pytest.raises(InterpretoError, match=message):
        GradCam(model)(np.zeros((8, 8, 3), np.float32) + np.arange(8)[:, None, None])


def test_functions_that_are_missing_are_named():
    model = from_callables(last_scores, layout="n h w c")
    for method, name in (
        (GradCam, "features="),
        (GuidedIG, "gradients="),
        (BlurIG, "gradients="),
        (XRAI, "gradients="),
    ):
        with pytest.raises(UnsupportedError, match=name):
            method(model)


# Bad input


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (BlurIG, {"n_steps": 0}, "n_steps=0"),
        (BlurIG, {"max_sigma": 0.5}, "max_sigma=0.5"),
        (BlurIG, {"rule": "simpson"}, "rule='simpson'"),
        (GuidedIG, {"n_steps": 0}, "n_steps=0"),
        (GuidedIG, {"fraction": 0.0}, "fraction=0.0"),
        (GuidedIG, {"max_dist": 2.0}, "max_dist=2.0"),
        (XRAI, {"algorithm": "ful"}, "did you mean 'full'"),
        (XRAI, {"area_threshold": 0.0}, "area_threshold=0.0"),
        (XRAI, {"base_attribution": np.zeros((4, 4))}, "20 x 24"),
        (XRAI, {"base_attribution": np.full((20, 24), np.nan)}, "NaN"),
        (XRAI, {"segments": np.zeros((4, 4), int)}, "20 x 24"),
        (XRAI, {"segments": np.zeros((20, 24))}, "integer labels"),
        (XRAI, {"segments": np.zeros((2, 20, 24), bool)}, "are empty"),
        (XRAI, {"base_attribution": "Saliency"}, "class of a method"),
        (XRAI, {"base_attribution": lambda image: image}, "class of a method"),
        (XRAI, {"segments": [np.zeros((20, 24), bool), np.zeros((3, 3), bool)]}, "of one shape"),
        (XRAI, {"segments": "felzenszwalb"}, "labels H W"),
        (BlurIG, {"max_sigma": float("inf")}, "max_sigma=inf"),
        (Occlusion, {"stride": 4}, "pass window= too"),
        (SmoothGrad, {"base_method": max}, "class of a method"),
        (Occlusion, {"window": 0}, "window=0"),
        (Occlusion, {"window": (3, 0)}, "window="),
        (Occlusion, {"window": 3, "stride": 0}, "stride=0"),
        (Occlusion, {"window": (21, 3)}, "does not fit"),
        (Occlusion, {"window": 3, "overlap": "max"}, "overlap='max'"),
        (SmoothGrad, {"base_method": Occlusion}, "Occlusion"),
    ],
)
def test_wrong_options_are_reported(method, options, message):
    with pytest.raises(InterpretoError, match=message):
        method(conv(), **options, **TASK)(PIXELS, 0)


def test_an_image_of_one_colour_cannot_be_divided():
    model, processor = image_model("vit")
    flat = Image.new("RGB", (40, 40), "teal")
    with pytest.raises(InputError, match="single colour"):
        XRAI(model, processor)(flat)
    halves = np.arange(32)[:, None] // 16 + np.zeros((1, 32), int)
    (output,) = XRAI(model, processor, segments=halves)(flat)
    assert output.segments.max() == 2


def test_arrays_belong_to_one_image():
    options = {"base_attribution": np.random.default_rng(0).random((20, 24)), **TASK}
    with pytest.raises(OptionError, match="several"):
        XRAI(conv(), **options)(PIXELS[None].repeat(2, 1, 1, 1))
    with pytest.raises(OptionError, match="several"):
        XRAI(conv(), segments=np.arange(480).reshape(20, 24) // 240, **TASK)(PIXELS[None].repeat(2, 1, 1, 1))


def test_texts_have_no_regions():
    model, words = text_model("bert")
    with pytest.raises(UnsupportedError, match="images"):
        XRAI(model, words)


def test_options_that_do_not_fit_are_reported_before_the_model_runs():
    ran = []

    def scores(arrays):
        ran.append(len(arrays))
        return arrays.mean((2, 3))

    model = from_callables(scores, lambda arrays, target: np.ones_like(arrays))
    pictures = np.random.default_rng(0).random((2, 3, 20, 24)).astype(np.float32)
    flat = np.stack([pictures[0], np.zeros_like(pictures[0])])
    for method, given in (
        (XRAI(model, base_attribution=np.zeros((20, 24))), pictures),
        (XRAI(model, base_attribution=np.zeros((4, 24))), pictures[0]),
        (XRAI(model, segments=np.zeros((4, 24), int)), pictures[0]),
        (XRAI(model), flat),
        (Occlusion(model, window=30), pictures),
        (SmoothGrad(model, base_method=partial(XRAI, segments=np.zeros((4, 24), int))), pictures[0]),
    ):
        with pytest.raises(InterpretoError):
            method(given, targets=0)
    assert not ran


def test_gradients_that_are_not_finite_are_reported():
    class Normalised(nn.Module):
        def forward(self, pixels):
            centred = pixels - pixels.mean((1, 2, 3), keepdim=True)
            return conv()(centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt())

    for method in (GuidedIG, IntegratedGradients, partial(SmoothGrad, base_method=GuidedIG)):
        with pytest.raises(ModelError, match=r"gradient is NaN|score is not a number"):
            method(Normalised(), **({"rule": "riemann-left"} if method is IntegratedGradients else {}), **TASK)(
                PIXELS, 0
            )


def test_small_segments_of_the_user_are_ranked():
    labels = np.arange(20)[:, None] // 5 * 6 + np.arange(24) // 4
    (output,) = XRAI(conv(), segments=labels, **TASK)(PIXELS, 0)
    assert output.segments.max() == 24


def test_a_perturbation_base_masks_its_own_units():
    base = partial(Occlusion, window=4, stride=4)
    (output,) = XRAI(conv(), base_attribution=base, **TASK)(PIXELS, 1)
    (own,) = base(conv(), **TASK)(PIXELS, 1)
    (expected,) = XRAI(conv(), base_attribution=own.attributions[0], **TASK)(PIXELS, 1)
    assert torch.allclose(output.attributions, expected.attributions, atol=1e-7)


def test_smoothing_keeps_the_units_of_what_is_smoothed():
    (output,) = SmoothGrad(conv(), base_method=XRAI, n_samples=2, **TASK)(PIXELS)
    assert output.granularity == Granularity.PIXEL


def test_a_generated_word_does_not_depend_on_later_words():
    model, words = zoo.load("stories-gpt2")
    prompt = zoo.samples("stories-gpt2", 1)[0].input
    run = partial(GuidedIG(model, words, n_steps=5, max_dist=1.0), prompt)
    ids = words(" a key and then", add_special_tokens=False)["input_ids"]
    (alone,), (both,) = run(targets=ids[:1]), run(targets=ids[:3])
    known = alone.attributions.shape[1]
    assert torch.allclose(alone.attributions[0], both.attributions[0, :known], atol=1e-4, equal_nan=True)


def test_only_activations_of_the_model_are_guided():
    """Not those in a target function, nor modules that are only named after an activation."""
    falling = lambda outputs: -torch.relu(50 - outputs[:, 0])  # noqa: E731
    options = {"granularity": "pixel", "reduction": "sum", **TASK}
    (output,) = GuidedBackprop(conv(), **options)(PIXELS, falling)
    (expected,) = GuidedBackprop(conv(), **options)(PIXELS, 0)
    assert torch.allclose(output.attributions, expected.attributions, atol=1e-7)

    class TinyReluNet(Conv):
        pass

    torch.manual_seed(3)
    (named,) = GuidedBackprop(TinyReluNet().eval(), **options)(PIXELS, Contrast(0, 1))
    (plain,) = GuidedBackprop(conv(), **options)(PIXELS, Contrast(0, 1))
    assert torch.allclose(named.attributions, plain.attributions, atol=1e-7)


def test_classes_are_as_many_at_every_call():
    counts = iter([10, 3, 3, 3])
    model = from_callables(lambda arrays: np.zeros((len(arrays), next(counts))))
    with pytest.raises(InterpretoError, match=r"must return an array of shape \(.*, 10\)"):
        Occlusion(model)(np.zeros((3, 20, 24), np.float32), targets=7)
    for found, message in (
        (lambda arrays: np.zeros((len(arrays), 0)), "one column per class"),
        (lambda arrays: [[1, 2], [3]], "cannot be converted to one"),
    ):
        with pytest.raises(InterpretoError, match=message):
            Occlusion(from_callables(found))(np.zeros((3, 20, 24), np.float32), targets=0)
    with pytest.raises(InterpretoError, match=r"\(1, 2\)"):
        Occlusion(from_callables(lambda a: np.zeros((len(a), 10)), labels=["a", "b"]))(np.zeros((3, 8, 8), np.float32))


def test_windows_wider_than_a_text_mask_all_of_it():
    model, words = text_model("bert")
    outputs = Occlusion(model, words, window=3)(["A truly charming film, and we saw it twice!", "Dull."], 1)
    assert outputs[1].attributions[0].unique().numel() == 1
    with pytest.raises(OptionError, match="one number for each"):
        Occlusion(model, words, window=(2, 3))


def test_xrai_is_compared_like_any_method(tmp_path):
    model, processor = zoo.load("shapes-vit")
    pictures = [example.input for example in zoo.samples("shapes-vit", 2)]
    labels = np.arange(64)[:, None] // 16 * 4 + np.arange(64) // 16
    run = partial(compare, model, processor, pictures, metrics="deletion", show_progress=False, n_bootstrap=20)
    with pytest.raises(OptionError, match="several"):
        run(methods={"X": partial(XRAI, segments=labels), "Saliency": Saliency})
    found = run(methods={"X": partial(XRAI, segments=lambda image: labels), "Saliency": Saliency})
    assert found.outputs("X")[0].attributions.shape == found.outputs("Saliency")[0].attributions.shape
    again = type(found).load(found.save(tmp_path / "run"))
    assert torch.equal(again.outputs("X")[0].segments, found.outputs("X")[0].segments)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
@pytest.mark.parametrize("method", [XRAI, partial(BlurIG, n_steps=3), partial(GuidedIG, n_steps=3), GuidedBackprop])
def test_images_of_other_kinds_are_read(method, mode):
    model, processor = image_model("vit")
    ramp = np.linspace(0, 255, 48 * 40).reshape(48, 40).astype(np.uint8)
    shown = Image.fromarray(ramp).convert(mode)
    (output,) = method(model, processor)(shown)
    assert output.attributions.isfinite().all()
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        method(model, processor)(np.full((48, 40, 3), 7.5, np.float32))


def test_many_samples_are_each_as_if_alone():
    model, processor, inputs = setting("image")
    for method in (XRAI, partial(GuidedIG, n_steps=4), partial(BlurIG, n_steps=4), GuidedBackprop):
        together = method(model, processor, batch_size=3)(inputs, targets=(0, 1))
        for output, given in zip(together, inputs, strict=True):
            (alone,) = method(model, processor)(given, targets=(0, 1))
            assert torch.allclose(output.attributions, alone.attributions, atol=1e-5)


def test_segments_are_saved(tmp_path):
    model, processor = zoo.load("shapes-vit")
    (output,) = XRAI(model, processor, granularity="pixel")(zoo.samples("shapes-vit", 1)[0].input)
    again = type(output).load(output.save(tmp_path / "xrai"))
    assert torch.equal(again.segments, output.segments)


def test_an_image_is_divided_as_published():
    values, _ = photograph((120, 200))
    found = segmented(values)
    expected = xrai._get_segments_felzenszwalb(values)
    assert len(found) == len(expected)
    for region, mask in enumerate(expected):
        assert np.array_equal(np.sort(found.pixels(region)), np.flatnonzero(mask))
