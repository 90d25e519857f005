"""Functions of arrays as models (`from_callables`)."""

import numpy as np
import pytest
import torch

from interpreto import (
    INTERNALS,
    METHODS,
    Contrast,
    GuidedBackprop,
    InterpretoError,
    KernelShap,
    Occlusion,
    Saliency,
    from_callables,
)
from interpreto.errors import OptionError
from tests.models import image_model, light, some_images

MODEL, PROCESSOR = image_model("vit")


def torch_scores(arrays):
    with torch.no_grad():
        return MODEL(pixel_values=torch.from_numpy(arrays)).logits.numpy()


def torch_gradients(arrays, target):
    pixels = torch.from_numpy(arrays).requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(MODEL(pixel_values=pixels).logits[:, target].sum(), pixels)[0].numpy()


def wrapped(layout="n c h w"):
    last = layout == "n h w c"
    to_model = (lambda a: np.moveaxis(a, -1, 1).copy()) if last else (lambda a: a)
    back = (lambda a: np.moveaxis(a, 1, -1)) if last else (lambda a: a)
    preprocess = lambda picture: PROCESSOR(picture, return_tensors="np")["pixel_values"][0]  # noqa: E731
    return from_callables(
        lambda arrays: torch_scores(to_model(arrays)),
        lambda arrays, target: back(torch_gradients(to_model(arrays), target)),
        layout=layout,
        patch_size=8,
        preprocess=(lambda picture: np.moveaxis(preprocess(picture), 0, -1)) if last else preprocess,
    )


@pytest.mark.parametrize("layout", ["n c h w", "n h w c"])
@pytest.mark.parametrize("method", [method for method in METHODS if method not in (*INTERNALS, GuidedBackprop)])
def test_a_wrapped_model_is_explained_as_the_model_itself(method, layout):
    pictures = some_images()
    expected = light(method)(MODEL, PROCESSOR)(pictures, targets=(1, Contrast(0, 2)))
    for output, other in zip(
        light(method)(wrapped(layout))(pictures, targets=(1, Contrast(0, 2))), expected, strict=True
    ):
        assert torch.allclose(output.attributions, other.attributions, atol=2e-4, rtol=1e-3)
        assert torch.allclose(output.elements, other.elements)


def test_a_classifier_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    classifier = LogisticRegression(max_iter=200, tol=0.1).fit(
        digits.images[:300].reshape(300, -1) / 16, digits.target[:300]
    )
    scores = from_callables(
        lambda arrays: classifier.decision_function(arrays.reshape(len(arrays), -1)), labels=list("0123456789")
    )
    image = (digits.images[0] / 16).astype(np.float32)
    (output,) = light(METHODS[0], granularity="pixel")(scores)(image, targets="0")
    assert torch.allclose(
        output.attributions[0].double(), torch.from_numpy(classifier.coef_[0].reshape(8, 8) * image), atol=1e-4
    )


BROKEN = {
    "shape": (lambda a: np.zeros(3), r"scores= must return an array of shape \(1, 'k'\); it returned \(3,\)"),
    "rows": (lambda a: np.zeros((7, 2)), r"it returned \(7, 2\)"),
    "NaN": (lambda a: np.full((len(a), 2), np.nan), "scores= returned NaN"),
    "dtype": (lambda a: np.full((len(a), 2), "x"), "scores= must return real numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_functions_that_return_something_else(name):
    function, message = BROKEN[name]
    with pytest.raises(InterpretoError, match=message):
        light(METHODS[0])(from_callables(function))(np.zeros((3, 8, 8), np.float32))


def test_wrong_arguments():
    zeros = lambda a: np.zeros((len(a), 2))  # noqa: E731
    image = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(InterpretoError, match=r"gradients= must return an array of shape \(1, 3, 8, 8\)"):
        Saliency(from_callables(zeros, lambda a, target: a[:, :1]))(image)
    with pytest.raises(InterpretoError, match="support only classes, not target functions"):
        Saliency(from_callables(zeros, lambda a, target: a))(image, targets=lambda scores: scores[:, 0])
    with pytest.raises(InterpretoError, match="layout='nchw': did you mean"):
        from_callables(zeros, layout="nchw")
    with pytest.raises(InterpretoError, match="has no label 'dog': choose from 'cat', 'cow'"):
        light(METHODS[0])(from_callables(zeros, labels=["cat", "cow"]))(image, targets="dog")


@pytest.mark.parametrize("method", [Occlusion, KernelShap])
def test_differences_survive_a_large_offset(method):
    image = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    model = from_callables(lambda images: images.astype(np.float64).mean((2, 3)) + 1e9)
    (output,) = method(model, patch_size=4)(image, 1)
    expected = image[1].reshape(2, 4, 2, 4).sum((1, 3)) / 64
    assert np.allclose(output.attributions[0], expected, atol=1e-6)
    assert output.scores.dtype == torch.float64
    assert float(output.scores) == image[1].mean(dtype=np.float64) + 1e9


def even(arrays):
    return np.zeros((len(arrays), 2))


@pytest.mark.parametrize(
    "labels",
    [5, True, "abc", [], {}, {"a", "b"}, {0: "a", 2: "b"}, {"a": 0}, {"a": 0, 1: "b"}, [None, None], [["a"], ["b"]]],
)
def test_labels_that_name_no_classes_are_refused(labels):
    with pytest.raises(OptionError, match="must be a list of the names of all classes"):
        from_callables(even, labels=labels)


def test_labels_are_a_list_an_array_or_a_mapping():
    for labels in (["cat", "cow"], ("cat", "cow"), np.array(["cat", "cow"]), {1: "cow", 0: "cat"}):
        explain = Occlusion(from_callables(even, labels=labels), granularity="pixel")
        (output,) = explain(np.zeros((3, 8, 8), np.float32), "cow")
        assert output.target_names == ("cow",)
