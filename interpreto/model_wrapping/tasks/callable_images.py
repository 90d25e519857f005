"""Any function from images to scores as a model: JAX, TensorFlow, NumPy, a remote service."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import InputError, ModelError, OptionError, UnsupportedError
from interpreto.model_wrapping.capture_request import ActivationRequest, CaptureRequest
from interpreto.model_wrapping.inputs import image as images
from interpreto.model_wrapping.inputs.image_preprocessor import PIXELS
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, Targets
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import ImageSample
from interpreto.model_wrapping.targets import ClassTargets, Contrast, DeferredTargets
from interpreto.model_wrapping.tasks.function_wrapper import FunctionWrapper, ScoreFunction, checked_array

GradientFunction = Callable[[np.ndarray, int], np.ndarray]
FeatureFunction = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@final
class CallableImages(FunctionWrapper):
    """Functions of image arrays behind the questions of the pipeline. Made by `from_callables`."""

    task, modality, ragged = "image-classification", "image", False
    no_attention = "nothing is known of the attention inside the functions of from_callables."

    def __init__(
        self,
        scores: ScoreFunction,
        gradients: GradientFunction | None,
        features: FeatureFunction | None,
        channels_last: bool,
        labels: Sequence[str] | None,
        preprocess: Callable[[Any], Any] | None,
        patch: tuple[int, int] | None,
    ) -> None:
        FunctionWrapper.__init__(self, scores, labels)
        self.gradients, self.features, self.channels_last = gradients, features, channels_last
        self.preprocess, self.patch = preprocess, patch
        self.no_gradients = "" if gradients is not None else "pass gradients= to from_callables."
        self.no_features = "" if features is not None else "pass features= to from_callables."
        self._lenses: dict[tuple[int, int], images.PreprocessingGeometry] = {}

    def is_one(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare(self, raw: Any) -> ImageSample:
        given = raw["pixel_values"] if isinstance(raw, dict) else raw
        if self.preprocess is not None or not isinstance(given, np.ndarray | Tensor):
            picture = images.to_image(given)
            values = self._preprocessed(picture)
            if picture.size not in self._lenses:
                self._lenses[picture.size] = images.geometry_of(self._preprocessed, picture.size)
            lens = self._lenses[picture.size]
            view, levels = lens.crop_box, lens.black_white or images.black_white_of(values)
        else:
            values, view, picture = _tensor(images.to_array(given), self.channels_last), None, None
            levels = images.black_white_of(values)
        height, width = values.shape[1:]
        shown = picture if picture is not None and view is not None else images.shown(values)
        whole = (0.0, 0.0, float(shown.width), float(shown.height))
        return ImageSample(Rows({PIXELS: values[None]}), shown, (height, width), view or whole, self.patch, levels)

    def _preprocessed(self, picture: Any) -> Float[Tensor, "c H W"]:
        if self.preprocess is None:
            return _tensor(np.asarray(picture, np.float32) / 255, channels_last=True)
        return _tensor(self.preprocess(picture), self.channels_last)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        rows = Rows.join([request.rows for request in requests]).fields[PIXELS]
        arrays = (rows.movedim(1, -1) if self.channels_last else rows).numpy()
        # Functions get copies: some change their argument in place.
        outputs = self.outputs_of(_copied(arrays), len(arrays))
        parts = outputs.split([len(request.rows) for request in requests])
        shares = arrays_of(arrays, [len(request.rows) for request in requests])
        return [self._one(request, part, share) for request, part, share in zip(requests, parts, shares, strict=True)]

    def _one(self, request: ModelRequest, outputs: Float[Tensor, "p k"], arrays: np.ndarray) -> ModelResponse:
        scores = request.targets.select(outputs)
        if request.capture is not None:
            targets = (
                request.targets.resolve(outputs) if isinstance(request.targets, DeferredTargets) else request.targets
            )
            return ModelResponse(scores, captured=self._maps(request.capture, targets, arrays))
        return ModelResponse(
            scores, None if request.gradient_field is None else self._gradients(request.targets, arrays)
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
            "Contrast, or a method that hides parts."
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


def arrays_of(arrays: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Consecutive parts of these sizes."""
    return np.split(arrays, np.cumsum(sizes)[:-1])
