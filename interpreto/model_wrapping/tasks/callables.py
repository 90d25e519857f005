"""Functions as models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

from interpreto.errors import OptionError
from interpreto.model_wrapping.tasks.classification import ClassTargetResolver
from interpreto.model_wrapping.tasks.image_functions import (
    FeatureFunction,
    FunctionImageReader,
    GradientFunction,
    ImageFunctionEngine,
)
from interpreto.model_wrapping.tasks.score_function import CheckedScores, ScoreFunction
from interpreto.model_wrapping.tasks.text_functions import (
    FunctionTextReader,
    TextFunctionEngine,
    text_function_tokens,
)
from interpreto.model_wrapping.wrapper import InferenceWrapper, WrapperParts
from interpreto.option_kinds import checks_options

Layout = Literal["n c h w", "n h w c"]


@checks_options
def from_callables(
    scores: ScoreFunction,
    gradients: GradientFunction | None = None,
    features: FeatureFunction | None = None,
    *,
    texts: bool = False,
    layout: Layout = "n c h w",
    labels: Sequence[str] | Mapping[int, str] | None = None,
    preprocess: Callable[[object], object] | None = None,
    patch_size: int | tuple[int, int] | None = None,
) -> InferenceWrapper:
    """Wrap functions of images or texts as a model: methods that mask units need `scores`, gradient methods also
    `gradients`, Grad-CAM `features`.

    Args:
        scores: From a float32 NumPy array of images in the layout, or a list of texts, to scores `n k`, one column per
            class.
        gradients: From images and a class index to the gradient of that class's scores, in the images' shape.
        features: From images and a class index to the features of a layer, in the images' layout with a height, width
            and number of channels of their own, and the gradient of that class's scores with respect to them.
        texts: Whether `scores` reads texts. Masked words are then replaced by a space, or by the text that `removal=`
            is. `gradients`, `features`, `layout`, `preprocess` and `patch_size` are for images.
        layout: "n c h w" or "n h w c", the order of axes in which the functions get images.
        labels: Names of the classes, or a mapping from class indices to names, such as `model.config.id2label`.
        preprocess: From a PIL image to the array `c h w` or `h w c` that the functions want; by default PIL images and
            files are scaled to [0, 1], and arrays and tensors are taken as they are, in the layout without n.
        patch_size: Height and width of patches, if the model has them.

    Raises:
        OptionError: if the layout is unknown, something is not callable, or an option of images is given for texts.

    Example:
        >>> from interpreto import Occlusion
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> Occlusion(model)("so good a film")[0].attributions
        tensor([[0., 1., 0., 0.]])
    """
    # `checks_options` has turned mappings into lists.
    names = cast(list[str] | None, labels)
    functions = {"scores": scores, "gradients": gradients, "features": features, "preprocess": preprocess}
    for name, function in functions.items():
        if not callable(function) and (function is not None or name == "scores"):
            raise OptionError(f"{name}={function!r} is not callable.")
    if not texts:
        patch = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        checked, channels_last = CheckedScores(scores, names), layout == "n h w c"
        reader = FunctionImageReader(preprocess, channels_last, patch)
        engine = ImageFunctionEngine(checked, gradients, features, channels_last)
        return InferenceWrapper(WrapperParts("image-classification", reader, _classes(checked), engine))
    of_images = {**functions, "patch_size": patch_size, "layout": None if layout == "n c h w" else layout}
    unexpected = [name for name, value in of_images.items() if value is not None and name != "scores"]
    if unexpected:
        raise OptionError(f"{unexpected[0]}= is for functions of images; with texts=True leave it out.")
    checked, text = CheckedScores(scores, names), text_function_tokens()
    reader, engine = FunctionTextReader(text), TextFunctionEngine(checked, text)
    return InferenceWrapper(WrapperParts("text-classification", reader, _classes(checked), engine, tokens=text))


def _classes(scores: CheckedScores) -> ClassTargetResolver:
    return ClassTargetResolver(scores.config, count=scores.n_labels)
