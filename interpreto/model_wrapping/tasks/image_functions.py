"""Functions of image arrays as models, such as JAX or TensorFlow models or remote services."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import InputError, ModelError, OptionError, UnsupportedError
from interpreto.model_wrapping.capture_request import ActivationRequest, CaptureRequest
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, Targets
from interpreto.model_wrapping.parts import InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import PIXELS, ImageSample
from interpreto.model_wrapping.targets import ClassTargets, Contrast, DeferredTargets
from interpreto.model_wrapping.tasks.score_function import CheckedScores, ScoreFunctionEngine, checked_array
from interpreto.type_guards import is_array, is_list

GradientFunction = Callable[[np.ndarray, int], np.ndarray]
"""Takes images and a class, and returns the gradient of the class scores with respect to the images."""
FeatureFunction = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Takes images and a class, and returns a layer's features, and the gradient of the class scores for them."""


@final
class FunctionImageReader(InputReader):
    """Reads images as arrays for the functions of `from_callables`.

    Args:
        preprocess: From a PIL image to the array that the functions expect; None for floats in [0, 1].
        channels_last: Whether arrays have the shape `h w c` instead of `c h w`.
        patch: Height and width of the model's patches; None if it has none.
    """

    modality = "image"
    spatial = True
    ragged = False

    def __init__(
        self, preprocess: Callable[[object], object] | None, channels_last: bool, patch: tuple[int, int] | None
    ) -> None:
        self.preprocess, self.channels_last, self.patch = preprocess, channels_last, patch
        self._geometries: dict[tuple[int, int], images.PreprocessingGeometry] = {}

    def is_single(self, inputs: object) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: object) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare_one(self, raw: object) -> ImageSample:
        source = raw[PIXELS] if isinstance(raw, dict) else raw
        if self.preprocess is not None or not is_array(source):
            image = images.to_image(source)
            values = self._preprocessed(image)
            if image.size not in self._geometries:
                self._geometries[image.size] = images.geometry_of(self._preprocessed, image.size)
            geometry = self._geometries[image.size]
            crop_box, black_white = geometry.crop_box, geometry.black_white or images.black_white_of(values)
        else:
            values, crop_box, image = _to_tensor(images.to_array(source), self.channels_last), None, None
            black_white = images.black_white_of(values)
        height, width = values.shape[1:]
        display_image = image if image is not None and crop_box is not None else images.shown(values)
        crop_box = crop_box or (0.0, 0.0, float(display_image.width), float(display_image.height))
        return ImageSample(
            Rows({PIXELS: values[None]}), display_image, (height, width), crop_box, self.patch, black_white
        )

    def _preprocessed(self, image: object) -> Float[Tensor, "c H W"]:
        if self.preprocess is None:
            return _to_tensor(np.asarray(image, np.float32) / 255, channels_last=True)
        return _to_tensor(self.preprocess(image), self.channels_last)


@final
class ImageFunctionEngine(ScoreFunctionEngine):
    """Runs the functions of `from_callables` on image arrays.

    Args:
        scores: The score function.
        gradients: Computes gradients for the images; None if the user did not pass it.
        features: Computes features and gradients for them; None if the user did not pass it.
        channels_last: Whether arrays have the shape `n h w c` instead of `n c h w`.
    """

    attention_obstacle = "the functions of from_callables do not provide attention."

    def __init__(
        self,
        scores: CheckedScores,
        gradients: GradientFunction | None,
        features: FeatureFunction | None,
        channels_last: bool,
    ) -> None:
        self.scores, self.gradients, self.features, self.channels_last = scores, gradients, features, channels_last
        self.gradient_obstacle = "" if gradients is not None else "pass gradients= to from_callables."
        self.activation_obstacle = "" if features is not None else "pass features= to from_callables."

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        rows = Rows.join([request.rows for request in requests]).fields[PIXELS]
        arrays = (rows.movedim(1, -1) if self.channels_last else rows).numpy()
        # Copies, because some functions modify their argument in place.
        outputs = self.scores(_copied(arrays), len(arrays))
        sizes = [len(request.rows) for request in requests]
        parts = zip(requests, outputs.split(sizes), np.split(arrays, np.cumsum(sizes)[:-1]), strict=True)
        return [self._response(*part) for part in parts]

    def _response(self, request: ModelRequest, outputs: Float[Tensor, "p k"], arrays: np.ndarray) -> ModelResponse:
        scores, targets = request.targets.select(outputs), request.targets
        if isinstance(targets, DeferredTargets):
            targets = targets.resolve(outputs)
        return ModelResponse(
            scores,
            None if request.gradient_field is None else self._gradients(targets, arrays),
            outputs if request.return_outputs else None,
            captured=None if request.capture is None else self._maps(request.capture, targets, arrays),
        )

    def _gradients(self, targets: Targets, arrays: np.ndarray) -> Float[Tensor, "p t c H W"]:
        assert isinstance(targets, ClassTargets)

        def gradient(target: int) -> Float[Tensor, "p c H W"]:
            assert self.gradients is not None
            return self._to_channels_first("gradients", self.gradients(_copied(arrays), target), arrays.shape)

        return torch.stack([_target_gradient(value, gradient) for value in targets.values], dim=1)

    def _maps(self, capture: CaptureRequest, targets: Targets, arrays: np.ndarray) -> Float[Tensor, "p t h w"]:
        """Apply the rule of the request to the features, for each target.

        Raises:
            OptionError: if the request names a layer.
        """
        assert isinstance(targets, ClassTargets)
        assert isinstance(capture, ActivationRequest)
        if capture.layer is not None:
            raise OptionError(
                "layer= selects a layer of a PyTorch model; the layer of features= is fixed: leave layer= out."
            )
        features_once: list[Tensor] = []

        def feature_gradient(target: int) -> Float[Tensor, "p c h w"]:
            assert self.features is not None
            result = self.features(_copied(arrays), target)
            if not is_list(result) or len(result) != 2:
                raise ModelError("features= must return two arrays: the features, and the gradient for them.")
            features, gradients = result
            shape = (len(arrays), None, None, None)
            if features_once:
                first = features_once[0].movedim(1, -1) if self.channels_last else features_once[0]
                shape = (len(arrays), *first.shape[1:])
            converted = self._to_channels_first("features", features, shape)
            # Features do not depend on the class, so that those of the first call serve all targets.
            if not features_once:
                features_once.append(converted)
            return self._to_channels_first("features", gradients, np.shape(features))

        gradients = [_target_gradient(value, feature_gradient) for value in targets.values]
        return torch.stack([capture.rule(features_once[0], gradient) for gradient in gradients], dim=1)

    def _to_channels_first(
        self, option: str, result: object, shape: tuple[int | None, ...]
    ) -> Float[Tensor, "p c h w"]:
        """Validate the array that a function returned, and convert it to a tensor with channels first."""
        array = torch.from_numpy(checked_array(option, result, shape, "hwc" if self.channels_last else "chw"))
        return array.movedim(-1, 1) if self.channels_last else array


def _target_gradient(target: object, gradient: Callable[[int], Tensor]) -> Tensor:
    """The gradient for a target, computed from gradients for classes.

    Raises:
        UnsupportedError: if the target is a function.
    """
    if isinstance(target, Contrast):
        return _target_gradient(target.fact, gradient) - _target_gradient(target.foil, gradient)
    if not isinstance(target, int):
        raise UnsupportedError(
            "The gradients= and features= of from_callables support only classes, not target functions. Use a class, a "
            "Contrast, or a method that masks units."
        )
    return gradient(target)


def _copied(array: np.ndarray) -> np.ndarray:
    return np.array(array, dtype=np.float32, order="C")


def _to_tensor(array: Any, channels_last: bool) -> Float[Tensor, "c H W"]:
    """Convert an image to a tensor with channels first; an image without a channel axis has one channel.

    Raises:
        InputError: if the shape is wrong, or there are no pixels or values that are not finite.
    """
    values = torch.from_numpy(_copied(array))
    if values.ndim == 2:
        return images.checked(values[None])
    if values.ndim != 3:
        raise InputError(f"An image array must have two or three axes; got the shape {tuple(values.shape)}.")
    return images.checked(values.movedim(-1, 0) if channels_last else values).contiguous()
