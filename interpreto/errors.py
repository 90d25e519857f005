"""Errors and warnings for users. Each message says what happened, why, and what to do.

Most errors also derive from a built-in exception, such as ValueError, so that callers can catch either.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class InterpretoError(Exception):
    """Base class of all errors of this package."""


class InputError(InterpretoError, ValueError):
    """A text, an image or a list of them that cannot be explained."""


class TargetError(InterpretoError, ValueError):
    """A target that the model does not have, or a list of targets of the wrong length."""


class OptionError(InterpretoError, TypeError):
    """An option that does not exist or has an impossible value."""


class ModelError(InterpretoError, ValueError):
    """A model or processor that cannot be loaded or that no wrapper supports."""


class UnsupportedError(InterpretoError):
    """A method that does not support this model."""


class SavedFileError(InterpretoError, OSError):
    """A file or folder that cannot be read or written, or that has other content than expected."""


class CannotCopyError(InterpretoError):
    """A model that cannot be copied, so that calls run one at a time on the model itself."""


class BatchWarning(UserWarning):
    """The model's outputs for an input depend on the other inputs of its batch."""


class StochasticModelWarning(UserWarning):
    """The model draws random numbers in its forward pass, and its scores depend on them."""


class ConvergenceWarning(UserWarning):
    """The completeness gap is large: attributions do not sum to the difference of scores that their method promises."""


class ZeroMapWarning(UserWarning):
    """A map is 0 everywhere, because its method keeps positive values only."""


def attach_outputs(error: BaseException, outputs: list[Any]) -> None:
    """Let an error carry the results that were finished before it, in the attribute `outputs`."""
    vars(error)["outputs"] = outputs


def choices(value: object, allowed: Iterable[object]) -> str:
    """The end of an error message about an unknown name: similar names if there are any, else the first 20 names."""
    names = [str(name) for name in allowed]
    similar = difflib.get_close_matches(str(value), names, n=3)
    if similar:
        return f"did you mean {' or '.join(repr(name) for name in similar)}?"
    listed = ", ".join(repr(name) for name in names[:20])
    return f"choose from {listed}{' ...' if len(names) > 20 else ''}."
