"""Images from paths, bytes and open files."""

import io
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from interpreto.errors import InputError
from interpreto.typing import BYTES

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:[a-z]+/")
"""A scheme of at least two letters, since one letter is a drive of Windows."""
_WITH_PREVIEWS = ("MPO",)
"""Formats of cameras whose further frames are previews or other views of the first."""
_MAX_CHARACTERS = 80


def is_image_source(value: object) -> bool:
    """Whether a value is one image that can be opened: a path, bytes, an open file, or a PIL image."""
    return isinstance(value, str | os.PathLike | Image.Image | BYTES) or _is_file(value)


def _is_file(value: object) -> bool:
    return callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))


def is_url(value: str) -> bool:
    """Whether a string is a URL."""
    return _URL.match(value) is not None


def load_image(source: Any) -> Image.Image:
    """Load the image of a path, bytes, an open file or a PIL image, with its EXIF orientation applied.

    Raises:
        InputError: if it cannot be read.
    """
    name = _name(source)
    if isinstance(source, str | os.PathLike):
        _check_path(source)
    if isinstance(source, io.TextIOBase):
        raise InputError(f"{name} was opened in text mode: open it with open(path, 'rb').")
    if isinstance(source, BYTES):
        source = io.BytesIO(source)
    try:
        if isinstance(source, Image.Image):
            n_frames, image = _loaded(source)
        else:
            with Image.open(source) as file:
                n_frames, image = _loaded(file)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} exceeds Pillow's size limit: {_first_line(error)} Resize it, or increase "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read as an image: Pillow does not recognize its format.") from error
    except Exception as error:
        # Pillow raises exceptions of many types for truncated or corrupt files.
        raise InputError(f"{name} cannot be read as an image: {_first_line(error)}") from error
    if n_frames > 1:
        warnings.warn(f"{name} has {n_frames} frames or pages: only the first one is explained.", stacklevel=2)
    return image


def _loaded(image: Image.Image) -> tuple[int, Image.Image]:
    """The number of frames, or 1 if the user has already selected one of them, and the image."""
    # Any frame but the first was selected by the user with seek().
    is_one_frame = image.tell() or image.format in _WITH_PREVIEWS
    # exif_transpose returns a loaded copy: closing the file would close the image as well.
    return 1 if is_one_frame else getattr(image, "n_frames", 1), ImageOps.exif_transpose(image)


def _name(source: object) -> str:
    """The name of an image in messages."""
    if isinstance(source, str | os.PathLike):
        return repr(_shortened(source))
    if isinstance(source, Image.Image):
        path = getattr(source, "filename", "")
        return f"The image {_shortened(path)!r}" if path else f"The image of {source.width} x {source.height} pixels"
    return f"The image in {type(source).__name__}"


def _shortened(path: object) -> str:
    """A path in messages, cut to its end, which identifies the file."""
    text = str(path)
    return text if len(text) <= 2 * _MAX_CHARACTERS else f"...{text[-_MAX_CHARACTERS:]}"


def _check_path(path: Any) -> None:
    """Check that a path is a file that can be opened.

    Raises:
        InputError: if it is not.
    """
    text = str(path)
    if not text:
        raise InputError("The path of an image is empty.")
    if isinstance(path, str) and is_url(path):
        raise InputError(
            f"{_shortened(path)!r} is a URL, and nothing is downloaded: download the image, and pass the path of the "
            "file, or its bytes."
        )
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise InputError(f"There is no image file {_shortened(text)!r}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{_shortened(text)!r} cannot be opened: {_first_line(error)}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{_shortened(text)!r} is a folder: pass a list of the paths of the images in it.")
    # Reading from a pipe would block until something is written to it.
    if not stat.S_ISREG(mode):
        raise InputError(f"{_shortened(text)!r} is a pipe or a device, not a file: read it, and pass its bytes.")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{line[: 2 * _MAX_CHARACTERS]}."
