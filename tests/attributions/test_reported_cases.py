"""Cases in which a result was silently wrong, or an error hard to understand."""

import copy
import io
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from interpreto import (
    BlurIG,
    Comparison,
    Deletion,
    GradCam,
    GradientShap,
    Grid,
    GuidedIG,
    IntegratedGradients,
    LeGrad,
    Lime,
    ModelRandomization,
    Occlusion,
    Saliency,
    Segments,
    SquareGrad,
    VarGrad,
    compare,
    from_callables,
    plot_attributions,
)
from interpreto.attributions.metrics.randomization import _random_like
from interpreto.comparison.fingerprint import describe_call, digest, fingerprint
from interpreto.errors import InputError, OptionError, UnsupportedError
from interpreto.extend import Layout, reduce_axis
from tests.causal_lms import causal_lm
from tests.dual_encoders import dual_encoder_model
from tests.models import image_model, some_images, text_model

PICTURE, OTHER = some_images()[:2]
VIT = image_model("vit")


def test_kernels_that_give_no_row_a_weight_are_refused():
    with pytest.raises(OptionError, match=r"kernel_width=0.05 is too small for 16 units"):
        Lime(*VIT, patch_size=8, kernel_width=0.05)(PICTURE, 0)


def test_interpolation_says_nothing_about_its_error():
    (output,) = Lime(*VIT, patch_size=8, ridge=0.0, n_samples=10)(PICTURE, 0)
    assert output.standard_errors.isnan().all()
    (output,) = Lime(*VIT, patch_size=8, n_samples=10)(PICTURE, 0)
    assert output.standard_errors.isfinite().all()


def test_squares_and_variances_have_no_sign():
    for method in (SquareGrad, VarGrad):
        (output,) = method(*VIT, reduction="sum", n_samples=4)(PICTURE, 0)
        assert output.info["signed"] is False
        assert (output.attributions >= 0).all()
    with pytest.raises(OptionError, match="variance of one copy"):
        VarGrad(*VIT, n_samples=1)
    assert VarGrad(*VIT, n_samples=2)(PICTURE, 0)[0].standard_errors is None


def test_a_gap_is_reported_only_of_the_sum_that_is_promised():
    assert GradientShap(*VIT, n_samples=8)(PICTURE, 0)[0].completeness_gap is not None
    assert GradientShap(*VIT, n_samples=8, noise_level=0.3)(PICTURE, 0)[0].completeness_gap is None


def test_baselines_of_images_are_one_or_several():
    explain = partial(IntegratedGradients, *VIT, n_steps=4)
    colour = explain(baseline=(0.5, 0.5, 0.5))(PICTURE, 0)[0].attributions
    assert torch.allclose(colour, explain(baseline=0.5)(PICTURE, 0)[0].attributions)
    several = explain(baseline=["black", "white"])(PICTURE, 0)[0].attributions
    assert torch.equal(several, explain(baseline=("black", "white"))(PICTURE, 0)[0].attributions)
    array = np.stack([np.zeros((3, 32, 32)), np.ones((3, 32, 32))]).astype("float32")
    maps = [explain(baseline=baselines)(PICTURE, 0)[0].attributions for baselines in (array, torch.tensor(array))]
    assert torch.equal(*maps)


def test_reductions_are_checked():
    with pytest.raises(OptionError, match="There is no reduction='mean'"):
        reduce_axis(torch.ones(2, 2), 1, "mean")


def test_the_empty_prompt_is_encoded_by_the_model_that_runs():
    model, processor = dual_encoder_model("siglip")
    model = copy.deepcopy(model)
    explain = LeGrad(model, processor)
    before = explain(PICTURE, "a cat")[0].attributions
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.text_model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    found = explain(PICTURE, "a cat")[0].attributions
    assert torch.allclose(found, LeGrad(model, processor)(PICTURE, "a cat")[0].attributions)
    assert not torch.allclose(found, before)


def test_arrays_of_prompts_are_prompts():
    explain = Saliency(*dual_encoder_model("clip"))
    prompts = ["a cat", "a dog"]
    for given in (np.array(prompts), np.array(prompts, dtype=object)):
        outputs = explain([PICTURE, OTHER], given)
        assert [output.target_names for output in outputs] == [("a cat",), ("a dog",)]


def test_weights_of_one_entry_are_randomised_to_numbers():
    assert _random_like(torch.ones(1, 1), torch.Generator().manual_seed(0)).isfinite().all()


def test_the_number_of_inputs_of_a_metric_is_checked():
    method = Saliency(*VIT)
    outputs = method([PICTURE])
    for metric in (ModelRandomization(method, n_steps=1), Deletion(*VIT)):
        with pytest.raises(InputError, match="1 outputs for 2 inputs"):
            metric.evaluate(outputs, [PICTURE, OTHER])
    value = ModelRandomization(method, n_steps=2).evaluate(outputs, iter([PICTURE])).mean
    assert value == ModelRandomization(method, n_steps=2).evaluate(outputs, [PICTURE]).mean


def test_a_stream_yields_the_results_before_an_invalid_sample():
    model, processor = text_model("bert")
    # Segments of the second text are outside of it.
    explain = Occlusion(model, processor, granularity=Segments({"verb": (9, 12)}))
    stream = explain.stream(iter(["the film was good", "short"]))
    assert next(stream).error is None
    with pytest.raises(InputError):
        next(stream)


def test_legends_show_target_names_as_they_are():
    (output,) = Saliency(*dual_encoder_model("clip"))(PICTURE, "costs $5_{$")
    figure = plot_attributions(output)
    figure.canvas.draw()
    (output,) = Occlusion(*VIT, patch_size=8)(PICTURE, 0)
    long = copy.copy(output)
    object.__setattr__(long, "target_names", ("n02123045_tabby_tabby_cat_domestic_shorthair_x",))
    labels = [text.get_text() for text in plot_attributions(long).legends[0].get_texts()]
    assert any("n02123045_tabby" in label for label in labels)
    plt.close("all")


class Fade(nn.Module):
    def __init__(self, strength):
        super().__init__()
        self.strength = strength


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


def code_of(body):
    namespace = {"__name__": "users_own"}
    exec(f"class Own:\n    {body}", namespace)
    return namespace["Own"]


DIFFERENT = {
    "spans": (Segments({"a": (0, 40)}), Segments({"a": (0, 80)})),
    "attributes of modules": (Fade(0.3), Fade(0.7)),
    "slots": (Slotted(1), Slotted(2)),
    "properties": (code_of("size = property(lambda self: 2)"), code_of("size = property(lambda self: 3)")),
    "ends of long texts": (b"a" * 600 + b"1", b"a" * 600 + b"2"),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_has_different_fingerprints(pair):
    assert fingerprint(pair[0]) != fingerprint(pair[1])


def test_what_is_the_same_has_the_same_fingerprint():
    assert digest(np.array(["good"], dtype=object)) == digest(np.array(["".join(["go", "od"])], dtype=object))
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2), nn.ReLU())
    first, last = (describe_call(partial(GradCam, layer=model[index]), {}, model) for index in (0, 2))
    assert first != last
    assert describe_call(partial(Lime, 64), {}, None) != describe_call(partial(Lime, 65), {}, None)


def test_an_open_file_is_one_sample_of_a_comparison():
    file = io.BytesIO()
    PICTURE.save(file, "png")
    comparison = compare(*VIT, file, methods=[Saliency], metrics="deletion", patch_size=8, show_progress=False)
    assert len(comparison.samples) == 1
    assert comparison.outputs("Saliency")[0] is not None


def test_methods_share_units_if_none_are_chosen():
    comparison = compare(
        *VIT, [PICTURE], methods=[Saliency, Occlusion], metrics="deletion", granularity=None, patch_size=None,
        show_progress=False,
    )  # fmt: skip
    assert len({comparison.outputs(name)[0].attributions.shape for name in ("Saliency", "Occlusion")}) == 1


def test_targets_of_methods_with_their_own_units_are_saved(tmp_path):
    comparison = compare(
        *causal_lm("gpt2"), ["the film was"], {"words": Occlusion, "tokens": partial(Occlusion, granularity="token")},
        metrics="deletion", targets=" unbelievable film", show_progress=False,
    )  # fmt: skip
    comparison.save(tmp_path / "run")
    loaded = Comparison.load(tmp_path / "run")
    for name in ("words", "tokens"):
        before, after = comparison.outputs(name)[0], loaded.outputs(name)[0]
        assert before.target_names == after.target_names
        assert torch.equal(before.attributions.nan_to_num(), after.attributions.nan_to_num())


def test_samples_that_no_method_has_explained_are_named():
    comparison = compare(*VIT, [PICTURE], methods=[Saliency], metrics="deletion", show_progress=False)
    empty = Comparison(comparison.config, [*comparison.samples, None], comparison.records)
    with pytest.raises(InputError, match="No method has an output for sample 1: it has not been run yet"):
        empty.plot_maps(1)


@pytest.mark.parametrize("method", [IntegratedGradients, GuidedIG])
@pytest.mark.parametrize(
    ("baseline", "count"),
    [(["black", "white"], 2), (("black", "white"), 2), ((0.1, 0.2, 0.3), 1), (np.zeros((2, 3, 32, 32)), 2)],
)
def test_evaluations_are_counted_per_baseline(method, baseline, count):
    explain = method(*VIT, n_steps=3, baseline=baseline)
    output = explain(PICTURE, 0)[0]
    assert explain.plan.n_evaluations(Layout((4, 4), (32, 32))) == 4 * count
    # The unperturbed sample is one more.
    assert output.n_evaluations == 4 * count + 1


def test_blur_integrated_gradients_need_two_left_nodes():
    with pytest.raises(OptionError, match="n_steps=1 is too few"):
        BlurIG(*VIT, n_steps=1)
    assert BlurIG(*VIT, n_steps=1, rule="riemann-right")(PICTURE, 0)[0].attributions.any()


def test_methods_that_do_not_support_the_model_are_reported_before_any_runs():
    ran = []
    model = from_callables(lambda x: ran.append(len(x)) or x.mean((2, 3)))
    arguments = {"metrics": "entropy", "granularity": Grid(2, 2), "show_progress": False, "on_error": "raise"}
    with pytest.raises(UnsupportedError):
        compare(model, None, [np.ones((2, 8, 8))], [Occlusion, Saliency], **arguments)
    assert not ran
    comparison = compare(model, None, [np.ones((2, 8, 8))], "all", **arguments)
    assert comparison.outputs("Occlusion")[0] is not None
    assert "Saliency" in str(comparison.failures)


def test_a_prompt_has_no_image():
    (output,) = Occlusion(*causal_lm("gpt2"))("the film was", " good")
    assert output.prompt == "the film was"
    for require in (output.require_image, output.require_boxes):
        with pytest.raises(OptionError, match="Maps are for images"):
            require()
    (image_output,) = Saliency(*VIT)(PICTURE, 0)
    assert image_output.prompt == ""
    assert image_output.require_boxes() is image_output.elements


class KeywordInput(nn.Module):
    """A classifier whose normalization gets its input by keyword."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.head, self.norm = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.head(self.norm(input=self.convolution(images)).relu().mean((2, 3)))


def test_normalization_may_get_its_input_by_keyword():
    explain = Saliency(KeywordInput().eval(), task="image-classification", granularity=Grid(2, 2))
    assert explain(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 1)[0].attributions.any()


def test_gradients_are_checked_on_a_path_and_not_at_a_kink():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2, bias=False))
    explain = IntegratedGradients(
        network.eval(), task="image-classification", granularity=Grid(2, 2), baseline="zeros", n_steps=8
    )
    (output,) = explain(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1, 1)
    assert output.completeness_gap.abs() < 1e-4
