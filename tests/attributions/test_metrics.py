"""Metrics against NumPy derivations on models with known answers, and on every task."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr, spearmanr
from torch import nn

from interpreto import (
    AttributionOutput,
    Completeness,
    Contrast,
    Deletion,
    Entropy,
    Gini,
    Grid,
    Infidelity,
    InputXGradient,
    Insertion,
    IntegratedGradients,
    KernelShap,
    MaxSensitivity,
    ModelRandomization,
    MuFidelity,
    Occlusion,
    PointingGame,
    RawAttention,
    RelevanceMass,
    RelevanceRank,
    Saliency,
    SensitivityN,
)
from interpreto.attributions.metrics.metric_result import as_list
from interpreto.errors import InputError, OptionError
from tests.attributions.test_invariants import assert_same, snapshot
from tests.causal_lms import causal_lm, slow_scores
from tests.models import TEXTS, image_model, some_images, text_model


class Linear(nn.Module):
    """Scores that are linear in the pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 3, 8, 8))

    def forward(self, pixels):
        return torch.einsum("pchw,kchw->pk", pixels, self.weight)


PIXELS = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
OPTIONS = {"task": "image-classification"}


def linear_model_and_shares():
    """A linear model, and the exact contribution of every patch of 2 x 2 pixels to its score of class 0."""
    model = Linear()
    (output,) = Occlusion(model, patch_size=2, **OPTIONS)(PIXELS, targets=0)
    shares = (model.weight[0] * PIXELS).sum(0).reshape(4, 2, 4, 2).sum((1, 3))
    assert torch.allclose(output.attributions[0], shares, atol=1e-4)
    return model, output


def with_attributions(output, scores):
    return AttributionOutput(**{**vars(output), "attributions": scores})


def masked_score(model, hidden):
    """The score of class 0 with some patches set to zero, one row at a time."""
    mask = np.kron(1 - hidden.reshape(4, 4), np.ones((2, 2)))
    return float((model.weight[0].detach().numpy() * PIXELS.numpy() * mask).sum())


def test_curves_are_those_of_a_loop():
    model, output = linear_model_and_shares()
    shares = output.attributions[0].flatten().numpy()
    order = np.argsort(-shares, kind="stable")
    for metric, inserts in ((Deletion, False), (Insertion, True)):
        found = metric(model, n_steps=8, inference_mode="logits", **OPTIONS).evaluate(output, PIXELS)
        values = []
        for step in range(9):
            hidden = np.full(16, float(inserts))
            hidden[order[: 2 * step]] = 1 - inserts
            values.append(masked_score(model, hidden))
        (curve,) = found.curves[0]
        assert curve.x.tolist() == pytest.approx([step / 8 for step in range(9)])
        assert curve.y.tolist() == pytest.approx(values, abs=1e-4)
        # The trapezoidal rule, as in the code of RISE's authors.
        area = (sum(values) - values[0] / 2 - values[-1] / 2) / 8
        assert float(found.values[0]) == pytest.approx(area, abs=1e-4)
        assert found.mean == pytest.approx(area, abs=1e-4)
        assert found.n_evaluations == 1 + 8


@pytest.mark.parametrize("metric", [Deletion, Insertion])
@pytest.mark.parametrize(("removal", "batch_size", "groups"), [("zeros", 8, 1), (0.5, 3, 3), ("mean", 8, 8)])
def test_images_share_the_fully_masked_row(metric, removal, batch_size, groups):
    """Images that are evaluated together share it; only the number of evaluations shows this."""
    model, processor = image_model("vit")
    pictures = [picture.rotate(angle) for angle in (0, 90, 180) for picture in some_images()][:8]
    outputs = Occlusion(model, processor, removal=removal)(pictures, targets=1)
    options = {"n_steps": 16, "removal": removal, "batch_size": batch_size}
    found = metric(model, processor, **options).evaluate(outputs, pictures)
    rows = 0
    for number, (output, picture) in enumerate(zip(outputs, pictures, strict=True)):
        alone = metric(model, processor, **options).evaluate(output, picture)
        assert torch.allclose(found.curves[number][0].y, alone.curves[0][0].y, atol=1e-6)
        rows += alone.n_evaluations
    assert found.n_evaluations == rows - len(pictures) + groups


def test_waiting_curves_keep_only_their_scores(monkeypatch):
    """A waiting curve must not keep the outputs of a whole batch alive, of which responses are views."""
    held, result = [], Deletion.result

    def watched(metric, found, rows):
        held.extend(tensor for courses in found for course in courses for tensor in (course.scores, *course.end))
        return result(metric, found, rows)

    monkeypatch.setattr(Deletion, "result", watched)
    model, processor = image_model("vit")
    pictures = some_images()
    Deletion(model, processor, n_steps=5).evaluate(Occlusion(model, processor)(pictures, targets=1), pictures)
    assert len(held) == 2 * len(pictures) - 1
    assert max(tensor.untyped_storage().nbytes() for tensor in held) == 6 * 4


class AnyChannels(nn.Module):
    """Reads images with any number of channels."""

    def __init__(self):
        nn.Module.__init__(self)
        self.head = nn.Linear(64, 2)

    def forward(self, pixels):
        return self.head(pixels.mean(1).flatten(1))


def test_images_with_other_channels_are_masked_separately():
    torch.manual_seed(0)
    model, pictures = AnyChannels(), [torch.rand(3, 8, 8), torch.rand(1, 8, 8), torch.rand(3, 8, 8)]
    options = {"task": "image-classification", "granularity": Grid(2, 2)}
    outputs = Occlusion(model, **options)(pictures, targets=0)
    metric = Deletion(model, n_steps=4, **options)
    found = metric.evaluate(outputs, pictures)
    for value, output, picture in zip(found.values, outputs, pictures, strict=True):
        assert torch.allclose(value, metric.evaluate(output, picture).values[0], atol=1e-6)
    assert found.n_evaluations == 3 * 5 - 1


class Squared:
    """A target that defines `__eq__` without `__hash__`, and therefore cannot be a dictionary key."""

    power = 2

    def __call__(self, outputs):
        return outputs[:, 0] ** self.power

    def __eq__(self, other):
        return isinstance(other, Squared) and other.power == self.power

    __hash__ = None


def test_curves_of_one_step_share_all_but_the_images():
    model, processor = image_model("vit")
    pictures = some_images()
    outputs = Occlusion(model, processor)(pictures, targets=(0, 0, 1))
    found = Deletion(model, processor, n_steps=1).evaluate(outputs, pictures)
    assert found.n_evaluations == len(pictures) + 2
    for value, curves in zip(found.values, found.curves, strict=True):
        assert value.tolist() == pytest.approx([float(curve.y.mean()) for curve in curves])
        assert torch.equal(curves[0].y, curves[1].y)
        assert [len(curve.y) for curve in curves] == [2, 2, 2]


@pytest.mark.parametrize("target", [Squared(), Contrast(0, 1)], ids=["function", "contrast"])
def test_curves_of_functions_and_contrasts_share_nothing(target):
    model, processor = image_model("vit")
    pictures = some_images() * 2
    outputs = Occlusion(model, processor)(pictures, targets=target)
    found = Deletion(model, processor, n_steps=8, batch_size=6).evaluate(outputs, pictures)
    assert found.n_evaluations == 6 * (1 + 8)


@pytest.mark.parametrize("metric", [Deletion, Insertion])
def test_a_curve_of_units_without_influence_is_undefined_and_does_not_affect_others(metric):
    model, output = linear_model_and_shares()
    silent = with_attributions(output, torch.full_like(output.attributions, torch.nan))
    found = metric(model, n_steps=4, batch_size=8, inference_mode="logits", **OPTIONS).evaluate(
        [silent, output, output, output, output], [PIXELS] * 5
    )
    assert len(found.curves[0][0].y) == 1
    alone = metric(model, n_steps=4, inference_mode="logits", **OPTIONS).evaluate(output, PIXELS)
    for (curve,) in found.curves[1:]:
        assert torch.allclose(curve.y, alone.curves[0][0].y, atol=1e-5)


def test_a_curve_of_one_step_has_both_ends():
    model, output = linear_model_and_shares()
    for metric, ends in ((Deletion, (1, 0)), (Insertion, (0, 1))):
        found = metric(model, n_steps=1, inference_mode="logits", **OPTIONS).evaluate([output] * 3, [PIXELS] * 3)
        scores = float(output.attributions.sum()), 0.0
        for (curve,) in found.curves:
            assert curve.x.tolist() == [0, 1]
            assert curve.y.tolist() == pytest.approx([scores[1 - end] for end in ends], abs=1e-4)


def test_no_order_deletes_faster_than_that_of_the_ideal_attribution():
    model, output = linear_model_and_shares()
    deletion = Deletion(model, inference_mode="logits", **OPTIONS)
    best = deletion.evaluate(output, PIXELS).mean
    for seed in range(5):
        other = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(seed))
        assert deletion.evaluate(with_attributions(output, other), PIXELS).mean > best


@pytest.mark.parametrize(("metric", "best"), [(SensitivityN, 1.0), (MuFidelity, 1.0), (Infidelity, 0.0)])
def test_the_ideal_attribution_is_faithful(metric, best):
    model, output = linear_model_and_shares()
    for scale in (1.0, 7.0):
        found = metric(model, **OPTIONS).evaluate(with_attributions(output, scale * output.attributions), PIXELS)
        assert found.mean == pytest.approx(best, abs=1e-5)
    assert Infidelity(model, normalize=False, **OPTIONS).evaluate(output, PIXELS).mean == pytest.approx(0, abs=1e-5)


def test_faithfulness_is_that_of_a_loop():
    model, output = linear_model_and_shares()
    noisy = output.attributions + torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))
    flat, base = noisy[0].flatten().double().numpy(), masked_score(model, np.zeros(16))
    for metric, statistic in (
        (SensitivityN(model, n=5, n_samples=40, **OPTIONS), lambda s, d: pearsonr(s, d).statistic),
        (MuFidelity(model, n_samples=40, **OPTIONS), lambda s, d: spearmanr(s, d).statistic),
        (Infidelity(model, n_samples=40, normalize=False, **OPTIONS), lambda s, d: np.mean((s - d) ** 2)),
        (
            Infidelity(model, n_samples=40, **OPTIONS),
            lambda s, d: np.mean((s * (s @ d) / (s @ s) - d) ** 2) / np.mean(d**2),
        ),
    ):
        rng = torch.Generator().manual_seed(0)
        subsets = np.stack([metric.subset(16, rng).numpy() for _ in range(40)])
        drops = np.array([base - masked_score(model, hidden) for hidden in subsets])
        expected = statistic(subsets @ flat, drops)
        assert metric.evaluate(with_attributions(output, noisy), PIXELS).mean == pytest.approx(expected, abs=1e-4)
    assert {int(row.sum()) for row in subsets} <= set(range(1, 16))


def test_random_attributions_are_as_good_as_chance():
    """Correlations of unrelated scores have mean 0 and a variance of about 1 / (g - 1) over attributions."""
    model, output = linear_model_and_shares()
    metric = SensitivityN(model, n=8, n_samples=200, **OPTIONS)
    draws = [torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(60)]
    found = metric.evaluate([with_attributions(output, draw) for draw in draws], [PIXELS] * 60)
    assert abs(found.mean) < 3 / (15 * 60) ** 0.5
    assert float(found.per_sample.std()) == pytest.approx(15**-0.5, rel=0.3)


def test_constant_attributions_have_defined_values():
    model, output = linear_model_and_shares()
    flat = with_attributions(output, torch.ones(1, 4, 4))
    assert SensitivityN(model, **OPTIONS).evaluate(flat, PIXELS).mean == 0
    assert np.isfinite(MuFidelity(model, **OPTIONS).evaluate(flat, PIXELS).mean)
    assert np.isfinite(Deletion(model, **OPTIONS).evaluate(flat, PIXELS).mean)
    nothing = with_attributions(output, torch.zeros(1, 4, 4))
    assert Infidelity(model, **OPTIONS).evaluate(nothing, PIXELS).mean == pytest.approx(1)
    assert Entropy().evaluate([flat, nothing]).per_sample.tolist() == pytest.approx([1, 1])
    assert Gini().evaluate([flat, nothing]).per_sample.tolist() == pytest.approx([0, 0])


def test_a_score_that_never_changes_has_no_correlation():
    model, output = linear_model_and_shares()
    with torch.no_grad():
        model.weight.zero_()
    for metric in (SensitivityN, MuFidelity, Infidelity):
        assert metric(model, **OPTIONS).evaluate(output, PIXELS).values[0].isnan().all()


def test_entropy_and_gini_by_hand():
    _, output = linear_model_and_shares()
    shares = torch.tensor([4.0, -2.0, 1.0, 1.0, *[0.0] * 12]).reshape(1, 4, 4)
    q = np.array([4, 2, 1, 1]) / 8
    assert Entropy().evaluate(with_attributions(output, shares)).mean == pytest.approx(
        -(q * np.log(q)).sum() / np.log(16)
    )
    x = np.sort(np.abs(shares.flatten().numpy()))
    expected = np.abs(x[:, None] - x[None]).sum() / (2 * 16**2 * x.mean())
    assert Gini().evaluate(with_attributions(output, shares)).mean == pytest.approx(expected)
    one = torch.zeros(1, 4, 4)
    one[0, 1, 2] = -3
    assert Entropy().evaluate(with_attributions(output, one)).mean == 0
    assert Gini().evaluate(with_attributions(output, one)).mean == pytest.approx(15 / 16)


def test_completeness_is_the_gap():
    model, vision = image_model("vit")
    outputs = IntegratedGradients(model, vision, n_steps=2)(some_images()[:2], targets=(0, 1))
    found = Completeness().evaluate(outputs)
    for output, values in zip(outputs, found.values, strict=True):
        total = output.attributions.flatten(1).sum(1) + output.completeness_gap
        assert torch.allclose(values.float(), (output.completeness_gap / total).abs(), rtol=1e-4)
    assert Completeness().evaluate(Saliency(model, vision)(some_images()[0])).values[0].isnan().all()


METRICS = [Deletion, Insertion, partial(SensitivityN, n_samples=20), partial(MuFidelity, n_samples=20), Infidelity]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["text", "pair", "image", "generation"])
def test_every_metric_works_on_every_task_in_a_batch(metric, kind):
    if kind == "generation":
        (model, processor), inputs, targets = causal_lm("gpt2"), ["The plot was", "A film, and"], " very long"
    elif kind == "image":
        (model, processor), inputs, targets = image_model("vit"), some_images()[:2], (0, Contrast(1, 2))
    else:
        (model, processor), targets = text_model("bert"), (0, Contrast(1, 2))
        inputs = TEXTS[:2] if kind == "text" else [tuple(TEXTS[:2]), ("a film", "not good")]
    outputs = KernelShap(model, processor, n_samples=40)(inputs, targets=targets)
    measure = metric(model, processor, batch_size=7)
    together = measure.evaluate(outputs)
    assert len(together.values) == 2
    for output, sample, values in zip(outputs, inputs, together.values, strict=True):
        assert values.shape == output.scores.shape
        assert values.isfinite().all()
        alone = measure.evaluate(output, [sample]).values[0]
        assert torch.allclose(values.double(), alone.double(), atol=1e-4)


def test_a_curve_of_a_generated_word_masks_only_units_that_can_influence_it():
    model, tokenizer = causal_lm("gpt2")
    (output,) = Occlusion(model, tokenizer, granularity="token")("The plot was", targets=" very")
    (curves,) = Deletion(model, tokenizer, inference_mode="log_softmax", removal="unk").evaluate(output).curves
    ids = tokenizer("The plot was")["input_ids"] + [int(token) for token in output.targets]
    begin = len(ids) - len(output.targets)
    assert len(curves) == len(output.targets)
    for target, curve in enumerate(curves):
        place = begin + target
        assert len(curve.x) == place + 1
        assert float(curve.y[0]) == pytest.approx(slow_scores(model, ids, [place])[0], abs=1e-4)
        unk = tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        nothing = [unk] * place + ids[place:]
        assert float(curve.y[-1]) == pytest.approx(slow_scores(model, nothing, [place])[0], abs=1e-4)


def test_units_are_found_again_whatever_they_were():
    model, vision = image_model("vit")
    from interpreto import Grid

    for granularity in (None, "pixel", Grid(3, 5), Grid(4, 4)):
        outputs = InputXGradient(model, vision, granularity=granularity)(some_images()[:1], targets=1)
        assert Deletion(model, vision, n_steps=4).evaluate(outputs).values[0].isfinite().all()


def test_outputs_that_do_not_belong_together_are_reported():
    model, tokenizer = text_model("bert")
    outputs = Occlusion(model, tokenizer)(TEXTS[:2], targets=0)
    deletion = Deletion(model, tokenizer)
    with pytest.raises(InputError, match="units of an output are not those of its sample"):
        deletion.evaluate(outputs, TEXTS[1::-1])
    with pytest.raises(InputError, match="no outputs to measure"):
        deletion.evaluate([])
    with pytest.raises(InputError, match="Expected outputs of a method, got str"):
        as_list(["a"])
    with pytest.raises(InputError, match="of a model for image-classification"):
        deletion.evaluate(Saliency(*image_model("vit"))(some_images()[0]))
    function = AttributionOutput(**{**vars(outputs[0]), "targets": ("f",), "target_names": ("f",), "request": None})
    with pytest.raises(InputError, match="of which only names are saved"):
        deletion.evaluate(function)
    with pytest.raises(OptionError, match="must be a whole number of at least 1 or a share of the units"):
        SensitivityN(model, tokenizer, n=2.5)
    with pytest.raises(OptionError, match="has no option 'n_step'"):
        Deletion(model, tokenizer, n_step=3)


def output_on_grid(scores, size=(8, 8)):
    """An output for an image in patches of 2 x 2, or in the given shape of units."""
    _, output = linear_model_and_shares()
    picture = Image.new("RGB", size)
    return AttributionOutput(**{**vars(output), "attributions": scores, "raw_input": picture})


def test_masks_against_pixels():
    mask = np.zeros((8, 8), dtype=bool)
    mask[1:5, 2:5] = True
    scores = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    output = output_on_grid(scores)
    pixels = np.kron(scores[0].numpy(), np.ones((2, 2)))
    top = pixels == pixels.max()
    assert PointingGame().evaluate(output, mask).mean == float(mask[top].any())
    share = mask[top].mean()
    assert PointingGame(min_overlap=share + 0.01).evaluate(output, mask).mean == 0
    positive = pixels.clip(0)
    expected = positive[mask].sum() / positive.sum()
    assert RelevanceMass().evaluate(output, mask).mean == pytest.approx(expected)
    # Patches without ties: the 12 pixels of the mask are three full patches.
    chosen = np.sort(scores.flatten().numpy())[-3]
    assert RelevanceRank().evaluate(output, mask).mean == pytest.approx(mask[pixels >= chosen].sum() / 12)


def test_the_mask_itself_scores_one():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 0:4] = True
    truth = torch.from_numpy(mask.reshape(4, 2, 4, 2).mean((1, 3))).float()[None]
    for metric in (PointingGame(), RelevanceMass(), RelevanceRank()):
        assert metric.evaluate(output_on_grid(truth), mask).mean == pytest.approx(1)
        # Constant attributions score as chance: the mask is a quarter of the image.
        for constant in (0.0, 1.0):
            assert metric.evaluate(output_on_grid(torch.full((1, 4, 4), constant)), mask).mean == pytest.approx(0.25)


def test_boxes_may_end_within_pixels():
    _, output = linear_model_and_shares()
    boxes = output.elements * 0.3
    mask = np.zeros((3, 3), dtype=bool)
    mask[0, 1] = True
    small = AttributionOutput(**{**vars(output), "elements": boxes, "raw_input": Image.new("RGB", (3, 3))})
    scores = torch.zeros(1, 4, 4)
    # From 0.6 to 1.2 in x, from 0 to 0.6 in y: a third of the box is on the mask.
    scores[0, 0, 1] = 1
    assert RelevanceMass().evaluate(with_attributions(small, scores), mask).mean == pytest.approx(1 / 3, abs=1e-5)


def test_masks_of_texts_are_words_or_booleans():
    model, tokenizer = text_model("bert")
    (output,) = Occlusion(model, tokenizer)("the plot was good", targets=0)
    scores = with_attributions(output, torch.tensor([[0.0, 0.5, -1.0, 1.5]]))
    for mask in (("good",), [False, False, False, True]):
        assert PointingGame().evaluate(scores, mask).mean == 1
        assert RelevanceMass().evaluate(scores, mask).mean == pytest.approx(0.75)
        assert RelevanceRank().evaluate(scores, mask).mean == 1
    with pytest.raises(InputError, match="one boolean for each of its 4 units"):
        PointingGame().evaluate(scores, [True, False])
    with pytest.raises(InputError, match="contains none of the units"):
        PointingGame().evaluate(scores, ("bad",))


def test_masks_that_do_not_fit_are_told_of():
    output = output_on_grid(torch.rand(1, 4, 4))
    with pytest.warns(UserWarning, match="4 x 4 pixels is resized to the 8 x 8"):
        found = PointingGame().evaluate(output, np.ones((4, 4), dtype=bool))
    assert found.mean == 1
    with pytest.raises(InputError, match="mask is empty"):
        PointingGame().evaluate(output, np.zeros((8, 8), dtype=bool))
    with pytest.raises(InputError, match=r"must have the shape \(H, W\)"):
        PointingGame().evaluate(output, np.zeros((8, 8, 3), dtype=bool))
    with pytest.raises(InputError, match="2 masks for 1 outputs"):
        PointingGame().evaluate([output], [np.ones((8, 8)), np.ones((8, 8))])


def test_a_random_model_has_other_attributions():
    model, vision = image_model("vit")
    before = snapshot(model)
    method = Saliency(model, vision)
    outputs = method(some_images()[:3], targets=1)
    found = ModelRandomization(method, n_steps=2).evaluate(outputs)
    assert_same(before, snapshot(model))
    for curves, values in zip(found.curves, found.values, strict=True):
        assert curves[0].x.tolist() == [0, 0.5, 1]
        assert float(curves[0].y[0]) == 1
        assert float(curves[0].y[2]) == float(values[0])
    assert found.mean < 0.9
    again = ModelRandomization(method).evaluate(outputs)
    assert torch.equal(again.per_sample, found.per_sample)
    other = ModelRandomization(method, seed=1).evaluate(outputs)
    assert not torch.equal(other.per_sample, found.per_sample)


def test_an_attribution_that_ignores_the_model_stays():
    """If randomization leaves the weights as they are, the order of the attributions stays."""
    model = Linear()
    with torch.no_grad():
        model.weight.fill_(1.0)
    method = Occlusion(model, patch_size=2, **OPTIONS)
    outputs = method(PIXELS, targets=0)
    # Randomizing a matrix of equal numbers leaves it unchanged.
    assert ModelRandomization(method).evaluate(outputs, PIXELS).mean == pytest.approx(1)
    with pytest.raises(InputError, match="the method is Occlusion"):
        ModelRandomization(method).evaluate(Saliency(model, patch_size=2, **OPTIONS)(PIXELS, targets=0), PIXELS)


def test_language_models_are_randomised_too():
    model, tokenizer = causal_lm("gpt2")
    before = snapshot(model)
    method = Occlusion(model, tokenizer)
    outputs = method(["The plot was", "a film"], targets=" very long")
    found = ModelRandomization(method).evaluate(outputs)
    assert all(values.isfinite().all() and (values.abs() <= 1).all() for values in found.values)
    assert_same(before, snapshot(model))


def test_the_gradient_of_a_linear_model_never_moves():
    model = Linear()
    method = Saliency(model, patch_size=2, **OPTIONS)
    found = MaxSensitivity(method, n_samples=3).evaluate(method(PIXELS, targets=(0, 1)), PIXELS)
    assert found.values[0].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_sensitivity_is_the_largest_change_of_a_loop():
    model = Linear()
    method = Occlusion(model, patch_size=2, removal=0.0, **OPTIONS)
    output = method(PIXELS, targets=0)[0]
    found = MaxSensitivity(method, radius=0.1, n_samples=4).evaluate(output, PIXELS)
    rng, worst = torch.Generator().manual_seed(0), 0.0
    scale = 0.1 * float(PIXELS.max() - PIXELS.min())
    own = output.attributions[0].numpy()
    for _ in range(4):
        noise = scale * (2 * torch.rand(PIXELS.shape, generator=rng) - 1)
        other = (model.weight[0] * (PIXELS + noise)).sum(0).reshape(4, 2, 4, 2).sum((1, 3)).detach().numpy()
        worst = max(worst, np.linalg.norm(other - own) / np.linalg.norm(own))
    assert found.mean == pytest.approx(worst, rel=1e-4)


@pytest.mark.parametrize("method", [Occlusion, Saliency, partial(KernelShap, n_samples=70)])
@pytest.mark.parametrize("kind", ["text", "image", "generation"])
def test_sensitivity_grows_with_the_radius_on_every_task(method, kind):
    (model, processor), inputs, targets = {
        "text": (text_model("bert"), TEXTS[:2], 0),
        "image": (image_model("vit"), some_images()[:2], 0),
        "generation": (causal_lm("gpt2"), ["The plot was", "A film, and"], " very long"),
    }[kind]
    explain = method(model, processor)
    outputs = explain(inputs, targets=targets)
    small, large = (
        MaxSensitivity(explain, radius=radius, n_samples=2).evaluate(outputs).per_sample for radius in (1e-5, 0.2)
    )
    assert (small < 0.02).all()
    assert (large > small).all()
    assert large.isfinite().all()


def test_attributions_that_leave_zero_are_infinitely_sensitive():
    model, output = linear_model_and_shares()
    method = Occlusion(model, patch_size=2, **OPTIONS)
    nothing = with_attributions(output, torch.zeros(1, 4, 4))
    assert MaxSensitivity(method).evaluate(nothing, PIXELS).values[0].isinf().all()
    with pytest.raises(OptionError, match="must be a positive number"):
        MaxSensitivity(method, radius=0.0)


def test_sensitivity_of_captured_internals_is_that_of_the_perturbed_sample():
    """The internals captured from the sample must not be used for its perturbed copies."""
    method = RawAttention(*text_model("bert"))
    outputs = method(TEXTS[:2], targets=0)
    assert (MaxSensitivity(method, n_samples=2).evaluate(outputs).per_sample > 0).all()
