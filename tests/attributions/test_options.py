"""Every value of every option works, or raises an `InterpretoError` before the model runs for long."""

import inspect
import re
import typing
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import interpreto
from interpreto import (
    CONTROLS,
    METHODS,
    METRICS,
    XRAI,
    GradCam,
    Grid,
    IntegratedGradients,
    InterpretoError,
    KernelShap,
    Occlusion,
    Patches,
    Prompt,
    Rise,
    Saliency,
    Segments,
    Sobol,
    compare,
    diverging,
    from_callables,
    grayscale,
    plot_attributions,
    plot_top,
)
from interpreto.errors import OptionError
from interpreto.option_kinds import MAX_SAMPLES, OPTION_KINDS, checks_options, read_option
from tests.causal_lms import causal_lm
from tests.conftest import reduced
from tests.models import FAST_OPTIONS, image_model, some_images, text_model

UNCHECKED = {
    "base_attribution", "baseline", "granularity", "masks", "methods", "metrics", "outputs", "removal", "removals",
    "segments", "spans", "targets", "thresholds", "inputs", "map", "gradients", "features", "preprocess",
    "scores",
}  # fmt: skip
"""Options that are checked only when the model or the sample is known."""


class Odd:
    def __repr__(self):
        return "Odd()"


SILLY = [
    None, True, False, -1, 0, 1, 2, 10**9, 10**30, -(10**30), 10**400, 0.5, 1.5, 1e9, -0.5, 1e-300, 1e300, float("nan"), float("inf"),
    -float("inf"), "", "x", "softmax", "mean", "bfloat16", "cuda", "cuda:99", "meta", "cpu", b"x", [], [1], [None], ["a"], (),
    (1, 2), (0, 0), (1, 2, 3), {}, {"a": 1}, {"max_new_tokens": "x"}, {1: 2}, set(), np.int64(3), np.float32(0.5),
    np.float64("nan"), np.bool_(True), np.array([1, 2]), np.array(3), torch.tensor(2), torch.tensor([1.0, 2.0]), torch.float16,
    torch.int64, torch.bfloat16, torch.device("cpu"), nn.Linear(1, 1), lambda x: x, len, int, Odd(), 1 + 2j, range(3),
    slice(2), Odd, Saliency, iter([1]),
]  # fmt: skip
values = st.one_of(
    st.sampled_from(SILLY),
    st.integers(-5, 40),
    st.floats(-3, 3),
    st.text(max_size=4),
    st.lists(st.integers(-2, 3), max_size=3),
)


@cache
def models():
    return {
        "text": (*text_model("bert"), ("a fine film",)),
        "image": (*image_model("vit"), (some_images()[0],)),
        "generation": (*causal_lm("gpt2"), ("the film was", " very good")),
    }


def options_of(method):
    """The names of all options of a method, its own and the shared ones."""
    parameters = inspect.signature(method).parameters.values()
    own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    rest = next(p for p in parameters if p.kind is p.VAR_KEYWORD)
    return own, [*own, *typing.get_args(rest.annotation)[0].__annotations__]


@settings(max_examples=reduced(4000, least=600), deadline=None)
@given(st.data())
def test_any_value_of_any_option_works_or_is_refused_with_one_error(data):
    kind = data.draw(st.sampled_from(sorted(models())))
    method = data.draw(st.sampled_from(METHODS + CONTROLS))
    own, names = options_of(method)
    name = data.draw(st.sampled_from(names))
    value = data.draw(values)
    model, processor, inputs = models()[kind]
    cheap = {
        **FAST_OPTIONS.get(method.__name__, {}),
        "n_samples": 200 if method.__name__ == "Sobol" else 8,
        "n_steps": 3,
    }
    base = {key: small for key, small in cheap.items() if key in own}
    if method.__name__ == "TokenFrequency":
        base["corpus"] = ["a film"]
    if name == "stride":
        base["window"] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = method(model, processor, **{**base, "show_progress": False, name: value})(*inputs)
        except InterpretoError as error:
            message = str(error)
        else:
            message = str(outputs[0])
    assert 0 < len(message) < 1500


@settings(max_examples=reduced(1600, least=200), deadline=None)
@given(st.data())
def test_any_value_of_any_other_option_is_read_or_refused(data):
    functions = [*METRICS, Grid, Patches, Segments, Prompt, compare, plot_attributions, plot_top, grayscale, diverging]
    function = data.draw(st.sampled_from([*functions, from_callables]))
    names = [p for p in inspect.signature(function).parameters if p in OPTION_KINDS]
    if not names:
        return
    name, value = data.draw(st.sampled_from(names)), data.draw(values)
    try:
        read = read_option(name, value)
    except OptionError as error:
        read = str(error).partition("=")[0]
        assert_same = read == name
    else:
        again = read_option(name, read)
        assert_same = again is read or again == read
    assert assert_same, f"{name}={value!r}"


def test_every_option_has_a_kind():
    functions = [
        *METHODS,
        *CONTROLS,
        *METRICS,
        Grid,
        Patches,
        compare,
        plot_attributions,
        plot_top,
        grayscale,
        diverging,
    ]
    for function in [*functions, from_callables]:
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in ("model", "processor", "method"):
                name = "patch_size" if (function, parameter.name) == (Patches, "size") else parameter.name
                assert name in OPTION_KINDS or name in UNCHECKED, f"{function.__name__}: {name}"
    for method in METHODS:
        assert set(options_of(method)[1]) <= OPTION_KINDS.keys() | UNCHECKED


@pytest.mark.parametrize("method", METHODS + CONTROLS)
def test_every_method_checks_its_options(method):
    assert getattr(method.__init__, "__wrapped__", None) is not None


def scores(method, kind="text", **options):
    model, processor, inputs = models()[kind]
    return method(model, processor, **options)(*inputs)[0].attributions


@pytest.mark.parametrize(
    ("method", "given", "meant"),
    [
        (KernelShap, {"n_samples": np.int64(6), "seed": np.uint8(3)}, {"n_samples": 6, "seed": 3}),
        (KernelShap, {"n_samples": torch.tensor(6), "seed": torch.tensor(3)}, {"n_samples": 6, "seed": 3}),
        (Saliency, {"autocast": "bfloat16"}, {"autocast": torch.bfloat16}),
        (Saliency, {"autocast": "torch.bfloat16", "device": torch.device("cpu")}, {"autocast": torch.bfloat16}),
        (Saliency, {"batch_size": np.int32(1), "inference_mode": None}, {"batch_size": 1}),
        (IntegratedGradients, {"n_steps": np.array(4)}, {"n_steps": 4}),
        (Occlusion, {"window": np.int64(2), "stride": np.int64(1)}, {"window": 2, "stride": 1}),
    ],
)
def test_numbers_and_names_of_other_libraries_are_read(method, given, meant):
    assert torch.equal(scores(method, **given), scores(method, **meant))


def test_pairs_are_read_from_lists_and_arrays():
    expected = scores(Occlusion, "image", window=(8, 16), stride=(8, 8))
    assert torch.equal(scores(Occlusion, "image", window=[8, 16], stride=np.array([8, 8])), expected)
    assert torch.equal(scores(Saliency, "image", patch_size=[8, np.int64(8)]), scores(Saliency, "image", patch_size=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": None}, "seed=None must be a whole number of at least 0"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"device": "meta"}, "device='meta' must be a device that can be used on this machine.*have no data"),
        ({"device": "gpu"}, "device='gpu' must be a device"),
        ({"autocast": torch.float32}, "autocast=torch.float32 must be torch.bfloat16 or torch.float16"),
        ({"autocast": "int8"}, "autocast='int8' must be torch.bfloat16"),
        (
            {"n_samples": 10**9},
            r"at most 1,000,000 \(it is the number of evaluations of the model for one target of one sample\)",
        ),
        ({"n_samples": 1e9}, "n_samples=1000000000.0 must be a whole number"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"show_progress": "yes"}, "show_progress='yes' must be True or False"),
        ({"keep_probability": torch.zeros(900)}, "keep_probability=tensor.* must be a number between 0 and 1"),
        ({"inference_mode": int}, "inference_mode=<class 'int'> must be a name or a function"),
        ({"inference_mode": nn.Linear(1, 1)}, r"inference_mode= raised RuntimeError .*array of shape \(1, 3\)"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    model, processor, inputs = models()["text"]
    with pytest.raises(OptionError, match=message):
        Rise(model, processor, **options)(*inputs)


@pytest.mark.parametrize("resize", ["", "lanczos", "nearest-exact", "Bilinear"])
@pytest.mark.parametrize("method", [GradCam, Sobol, XRAI])
def test_interpolations_that_are_not_there_are_refused(method, resize):
    model, processor, _ = models()["image"]
    with pytest.raises(OptionError, match=re.escape(f"There is no resize={resize!r}")):
        method(model, processor, resize=resize)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", 0, torch.device("cuda")])
def test_a_missing_device_is_reported_in_one_line(device):
    model, processor, _ = models()["text"]
    with pytest.raises(OptionError, match="can be used on this machine") as caught:
        Saliency(model, processor, device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("size", [0, -3, (0, 4), (4,), 2.5, "4"])
def test_patches_without_pixels_are_refused(size):
    model, processor, _ = models()["image"]
    for make in (lambda: Patches(size), lambda: Saliency(model, processor, patch_size=size)):
        with pytest.raises(OptionError, match="must be a whole number of at least 1"):
            make()


def test_arguments_by_place_are_checked_too():
    @checks_options
    def both(n_samples, seed=0, *rest):
        return n_samples, seed, rest

    assert both(np.int64(MAX_SAMPLES), np.int8(1), None) == (MAX_SAMPLES, 1, (None,))
    with pytest.raises(OptionError, match=r"seed=None"):
        both(3, None)


@pytest.mark.usefixtures("without_type_checks")
def test_public_functions_take_numbers_of_numpy():
    assert Grid(np.int64(2), np.int16(3)) == Grid(2, 3)
    assert torch.equal(interpreto.grayscale(torch.eye(3), np.float32(99)), interpreto.grayscale(torch.eye(3), 99))
