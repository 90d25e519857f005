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

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_PREVIEWED = ("MPO",)
"""Formats of cameras whose further frames are previews of the first."""
_SHOWN = 80


def is_source(given: Any) -> bool:
    """Whether something is one image that can be opened: a path, bytes, an open file, or a PIL image."""
    return isinstance(given, str | os.PathLike | Image.Image | BYTES) or _is_file(given)


def _is_file(given: Any) -> bool:
    return callable(getattr(given, "read", None)) and callable(getattr(given, "seek", None))


def is_url(given: str) -> bool:
    """Whether a string is the address of something elsewhere."""
    return _URL.match(given) is not None


def opened(source: Any) -> Image.Image:
    """The image behind a path, bytes, an open file or a PIL image, loaded, and turned as the camera was held.

    Raises:
        InputError: if it cannot be read.
    """
    name = _name(source)
    if isinstance(source, str | os.PathLike):
        _check_path(source)
    if isinstance(source, io.TextIOBase):
        raise InputError(f"{name} was opened as text: open it with open(path, 'rb').")
    if isinstance(source, BYTES):
        source = io.BytesIO(source)
    try:
        if isinstance(source, Image.Image):
            frames, image = _loaded(source)
        else:
            with Image.open(source) as file:
                frames, image = _loaded(file)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} is larger than Pillow reads: {_first_line(error)} Make it smaller, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read as an image: it has no format that Pillow knows.") from error
    except Exception as error:
        # Pillow raises almost anything for files that are cut off or damaged.
        raise InputError(f"{name} cannot be read as an image: {_first_line(error)}") from error
    if frames > 1:
        warnings.warn(f"{name} has {frames} frames or pages: the first one is explained.", stacklevel=2)
    return image


def _loaded(image: Image.Image) -> tuple[int, Image.Image]:
    """How many frames there are, where nobody chose one of them, and the image."""
    chosen = image.tell() or image.format in _PREVIEWED
    # A copy, for closing the file closes the image with it.
    return 1 if chosen else getattr(image, "n_frames", 1), ImageOps.exif_transpose(image)


def _name(source: Any) -> str:
    """An image in messages."""
    if isinstance(source, str | os.PathLike):
        return repr(_shortened(source))
    if isinstance(source, Image.Image):
        path = getattr(source, "filename", "")
        return f"The image {_shortened(path)!r}" if path else f"The image of {source.width} x {source.height} pixels"
    return f"The image in {type(source).__name__}"


def _shortened(path: Any) -> str:
    """A path in messages: its end tells most."""
    written = str(path)
    return written if len(written) <= 2 * _SHOWN else f"...{written[-_SHOWN:]}"


def _check_path(path: Any) -> None:
    """Refuse what is no file that can be opened.

    Raises:
        InputError: if it is none.
    """
    written = str(path)
    if not written:
        raise InputError("The path of an image is empty.")
    if isinstance(path, str) and is_url(path):
        raise InputError(
            f"{_shortened(path)!r} is a URL, and nothing is downloaded here: download the image, and give the path of "
            "the file, or its bytes."
        )
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise InputError(f"There is no image file {_shortened(written)!r}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{_shortened(written)!r} cannot be opened: {_first_line(error)}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{_shortened(written)!r} is a folder: give the images in it as a list of paths.")
    if not stat.S_ISREG(mode):
        raise InputError(f"{_shortened(written)!r} is a pipe or a device, no file: read it, and give its bytes.")


def _first_line(error: Exception) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{said[: 2 * _SHOWN]}."
