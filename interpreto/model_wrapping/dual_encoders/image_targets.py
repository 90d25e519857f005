"""Images as targets, with which texts are compared."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from interpreto.errors import TargetError
from interpreto.model_wrapping.dual_encoders.encoded_targets import OtherSide
from interpreto.model_wrapping.inputs.image_preprocessor import ImagePreprocessor
from interpreto.model_wrapping.inputs.image_sources import is_image_source
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.targets import map_targets
from interpreto.type_guards import is_array


@final
@dataclass(frozen=True, eq=False)
class ImageTarget:
    """An image with which texts are compared.

    Attributes:
        raw: The image in the user's form.
    """

    raw: Any

    @property
    def name(self) -> str:
        """The name of its file, if it has one."""
        return Path(self.raw).name if isinstance(self.raw, str | Path) else "the image"


def _mark(target: object) -> Any:
    if is_array(target) and target.ndim == 4:
        # An array with four axes is several images, all of them targets of every sample.
        return tuple(map(ImageTarget, target))
    return ImageTarget(target) if is_image_source(target) or is_array(target) or isinstance(target, dict) else target


@final
@dataclass(frozen=True, eq=False)
class ImageTargets(OtherSide):
    """Images, encoded by the image tower.

    Attributes:
        preprocessor: Converts them to pixel values.
    """

    preprocessor: ImagePreprocessor
    expected = "images that the text is compared with, or their embeddings; a tuple is several targets"

    def mark(self, targets: object) -> Any:
        return map_targets(_mark, targets)

    def check(self, target: object) -> None:
        if not isinstance(target, ImageTarget):
            raise TargetError(f"A target of the type {type(target).__name__} is not an image: pass {self.expected}.")

    def key(self, target: object) -> Hashable:
        # Images are compared by identity: comparing pixels would cost more than encoding them twice. The key is the
        # object itself, so that its identity is not given to another image while its features are kept.
        assert isinstance(target, ImageTarget)
        return target

    def name(self, target: Any) -> str:
        return target.name

    def rows(self, targets: Sequence[Any]) -> list[Rows]:
        return [sample.rows for sample in self.preprocessor.prepare([target.raw for target in targets])]
