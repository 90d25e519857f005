"""Any function from images to scores as a model: JAX, TensorFlow, NumPy, a remote service."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interpreto.errors import InputError, ModelError, OptionError, UnsupportedError
from interpreto.model_wrapping import images
from interpreto.model_wrapping.conversation import Answer, Ask, Targets
from interpreto.model_wrapping.function_wrapper import FunctionWrapper, ScoreFunction, checked_array
from interpreto.model_wrapping.inside.probe import FeatureProbe, Probe
from interpreto.model_wrapping.pictures import PIXELS
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.sample import ImageSample
from interpreto.model_wrapping.targets import ClassTargets, Contrast, Foreseen

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
        self._lenses: dict[tuple[int, int], images.Lens] = {}

    def is_one(self, inputs: Any) -> bool:
        return images.is_one_image(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return images.split_images(inputs)

    def prepare(self, raw: Any) -> ImageSample:
        given = raw["pixel_values"] if isinstance(raw, dict) else raw
        if self.preprocess is not None or not isinstance(given, np.ndarray | Tensor):
            picture = images.to_picture(given)
            values = self._preprocessed(picture)
            if picture.size not in self._lenses:
                self._lenses[picture.size] = images.lens_of(self._preprocessed, picture.size)
            lens = self._lenses[picture.size]
            view, levels = lens.view, lens.levels or images.levels_of(values)
        else:
            values, view, picture = _tensor(images.to_array(given), self.channels_last), None, None
            levels = images.levels_of(values)
        height, width = values.shape[1:]
        shown = picture if picture is not None and view is not None else images.shown(values)
        whole = (0.0, 0.0, float(shown.width), float(shown.height))
        return ImageSample(Rows({PIXELS: values[None]}), shown, (height, width), view or whole, self.patch, levels)

    def _preprocessed(self, picture: Any) -> Float[Tensor, "c H W"]:
        if self.preprocess is None:
            return _tensor(np.asarray(picture, np.float32) / 255, channels_last=True)
        return _tensor(self.preprocess(picture), self.channels_last)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        rows = Rows.join([ask.rows for ask in asks]).fields[PIXELS]
        arrays = (rows.movedim(1, -1) if self.channels_last else rows).numpy()
        # Functions get copies: some change their argument in place.
        outputs = self.outputs_of(_copied(arrays), len(arrays))
        parts = outputs.split([len(ask.rows) for ask in asks])
        shares = arrays_of(arrays, [len(ask.rows) for ask in asks])
        return [self._one(ask, part, share) for ask, part, share in zip(asks, parts, shares, strict=True)]

    def _one(self, ask: Ask, outputs: Float[Tensor, "p k"], arrays: np.ndarray) -> Answer:
        scores = ask.targets.select(outputs)
        if ask.probe is not None:
            targets = ask.targets.settle(outputs) if isinstance(ask.targets, Foreseen) else ask.targets
            return Answer(scores, inside=self._maps(ask.probe, targets, arrays))
        return Answer(scores, None if ask.of is None else self._gradients(ask.targets, arrays))

    def _gradients(self, targets: Targets, arrays: np.ndarray) -> Float[Tensor, "p t c H W"]:
        assert isinstance(targets, ClassTargets)

        def gradient(target: int) -> Float[Tensor, "p c H W"]:
            assert self.gradients is not None
            return self._image("gradients", self.gradients(_copied(arrays), target), arrays.shape)

        return torch.stack([_of_target(value, gradient) for value in targets.values], dim=1)

    def _maps(self, probe: Probe, targets: Targets, arrays: np.ndarray) -> Float[Tensor, "p t h w"]:
        """What a rule makes of the features, for each target.

        Raises:
            OptionError: if a layer is named.
        """
        assert isinstance(targets, ClassTargets)
        assert isinstance(probe, FeatureProbe)
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
        return _of_target(target.for_, gradient) - _of_target(target.against, gradient)
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
