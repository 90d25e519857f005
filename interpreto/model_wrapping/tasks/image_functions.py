"""Functions from images to scores as models: JAX, TensorFlow, NumPy, a remote service."""

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
from interpreto.model_wrapping.parts import Engine, InputReader
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import PIXELS, ImageSample
from interpreto.model_wrapping.targets import ClassTargets, Contrast, DeferredTargets
from interpreto.model_wrapping.tasks.score_function import CheckedScores, checked_array

GradientFunction = Callable[[np.ndarray, int], np.ndarray]
FeatureFunction = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@final
class FunctionImageReader(InputReader):
    """Reads images for functions of arrays.

    Args:
        preprocess: From a PIL image to the array that the functions take; None for floats in [0, 1].
        channels_last: Whether arrays are `h w c`.
        patch: Height and width of patches, if the model has them.
    """

    modality = "image"
    spatial = True
    ragged = False

    def __init__(
        self, preprocess: Callable[[Any], Any] | None, channels_last: bool, patch: tuple[int, int] | None
    ) -> None:
        self.preprocess, self.channels_last, self.patch = preprocess, channels_last, patch
        self._geometries: dict[tuple[int, int], images.PreprocessingGeometry] = {}

    def is_single(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare_one(self, raw: Any) -> ImageSample:
        given = raw[PIXELS] if isinstance(raw, dict) else raw
        if self.preprocess is not None or not isinstance(given, np.ndarray | Tensor):
            image = images.to_image(given)
            values = self._preprocessed(image)
            if image.size not in self._geometries:
                self._geometries[image.size] = images.geometry_of(self._preprocessed, image.size)
            geometry = self._geometries[image.size]
            crop_box, levels = geometry.crop_box, geometry.black_white or images.black_white_of(values)
        else:
            values, crop_box, image = _tensor(images.to_array(given), self.channels_last), None, None
            levels = images.black_white_of(values)
        height, width = values.shape[1:]
        shown = image if image is not None and crop_box is not None else images.shown(values)
        whole = (0.0, 0.0, float(shown.width), float(shown.height))
        return ImageSample(Rows({PIXELS: values[None]}), shown, (height, width), crop_box or whole, self.patch, levels)

    def _preprocessed(self, image: Any) -> Float[Tensor, "c H W"]:
        if self.preprocess is None:
            return _tensor(np.asarray(image, np.float32) / 255, channels_last=True)
        return _tensor(self.preprocess(image), self.channels_last)


@final
class ImageFunctionEngine(Engine):
    """Runs functions of image arrays.

    Args:
        scores: From arrays to scores.
        gradients: From arrays and a class to the gradient of its scores; None if there are none.
        features: From arrays and a class to features, and the gradient of its scores for them; None if there are none.
        channels_last: Whether arrays are `h w c`.
    """

    attention_obstacle = "the attention inside the functions of from_callables is not known."

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

    def provenance(self) -> dict[str, Any]:
        return self.scores.provenance()

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        rows = Rows.join([request.rows for request in requests]).fields[PIXELS]
        arrays = (rows.movedim(1, -1) if self.channels_last else rows).numpy()
        # Functions get copies: some change their argument in place.
        outputs = self.scores(_copied(arrays), len(arrays))
        sizes = [len(request.rows) for request in requests]
        parts = zip(requests, outputs.split(sizes), np.split(arrays, np.cumsum(sizes)[:-1]), strict=True)
        return [self._one(*part) for part in parts]

    def _one(self, request: ModelRequest, outputs: Float[Tensor, "p k"], arrays: np.ndarray) -> ModelResponse:
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
            return self._image("gradients", self.gradients(_copied(arrays), target), arrays.shape)

        return torch.stack([_of_target(value, gradient) for value in targets.values], dim=1)

    def _maps(self, probe: CaptureRequest, targets: Targets, arrays: np.ndarray) -> Float[Tensor, "p t h w"]:
        """What a rule makes of the features, for each target.

        Raises:
            OptionError: if a layer is named.
        """
        assert isinstance(targets, ClassTargets)
        assert isinstance(probe, ActivationRequest)
        if probe.layer is not None:
            raise OptionError("layer= names a layer of a PyTorch model; here features= decides: leave layer= out.")
        seen: list[Tensor] = []

        def gradient(target: int) -> Float[Tensor, "p c h w"]:
            assert self.features is not None
            found = self.features(_copied(arrays), target)
            if not isinstance(found, tuple | list) or len(found) != 2:
                raise ModelError("features= must return two arrays: the features, and the gradient for them.")
            features, slopes = found
            axes = (len(arrays), None, None, None)
            if seen:
                axes = (len(arrays), *(seen[0].movedim(1, -1) if self.channels_last else seen[0]).shape[1:])
            found = self._image("features", features, axes)
            seen[:] = seen[:1] or [found]
            return self._image("features", slopes, np.shape(features))

        gradients = [_of_target(value, gradient) for value in targets.values]
        # A layer's features are the same whatever is asked about.
        return torch.stack([probe.rule(seen[0], slopes) for slopes in gradients], dim=1)

    def _image(self, name: str, result: Any, shape: tuple[int | None, ...]) -> Float[Tensor, "p c h w"]:
        found = torch.from_numpy(checked_array(name, result, shape, "hwc" if self.channels_last else "chw"))
        return found.movedim(-1, 1) if self.channels_last else found


def _of_target(target: Any, gradient: Callable[[int], Tensor]) -> Tensor:
    """The gradient of a class, or of a difference between two.

    Raises:
        UnsupportedError: if the target is a function.
    """
    if isinstance(target, Contrast):
        return _of_target(target.fact, gradient) - _of_target(target.foil, gradient)
    if not isinstance(target, int):
        raise UnsupportedError(
            "A target function has no gradient here: the wrapped functions know class indices. Use a class, a "
            "Contrast, or a method that perturbs the input."
        )
    return gradient(target)


def _copied(array: np.ndarray) -> np.ndarray:
    return np.array(array, dtype=np.float32, order="C")


def _tensor(given: Any, channels_last: bool) -> Float[Tensor, "c H W"]:
    """An image as these functions read it, channels first; two axes are one channel.

    Raises:
        InputError: if it has other axes, no pixels, or NaN.
    """
    values = torch.from_numpy(_copied(given))
    if values.ndim == 2:
        return images.checked(values[None])
    if values.ndim != 3:
        raise InputError(f"An image for these functions has three axes; got the shape {tuple(values.shape)}.")
    return images.checked(values.movedim(-1, 0) if channels_last else values).contiguous()
