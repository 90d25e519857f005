"""The errors that a user can meet, all with a message that says what, because of what, and what to do."""

import difflib
from collections.abc import Iterable


class InterpretoError(Exception):
    """Anything that this package refuses to do, with the reason."""


class InputError(InterpretoError, ValueError):
    """A text, an image or a list of them that cannot be explained."""


class TargetError(InterpretoError, ValueError):
    """A target that the model does not have, or a list of targets of the wrong length."""


class OptionError(InterpretoError, TypeError):
    """An option that does not exist or has an impossible value."""


class ModelError(InterpretoError, ValueError):
    """A model or processor that no wrapper fits."""


class UnsupportedError(InterpretoError):
    """A method that cannot work on this model, and why."""


class SavedFileError(InterpretoError, OSError):
    """A file or folder that cannot be read or written, or that holds something else."""


class CannotCopyError(InterpretoError):
    """A model of which no working copy can be made, so that calls run one at a time on the model itself."""


class BatchWarning(UserWarning):
    """What a model says of an input depends on the other inputs of its batch."""


class StochasticModelWarning(UserWarning):
    """A model draws random numbers when it runs, and its score depends on them."""


class ConvergenceWarning(UserWarning):
    """Attributions that miss the sum that their method promises."""


class ZeroMapWarning(UserWarning):
    """Maps in which a method that keeps positive sums alone leaves nothing."""


def choices(given: object, known: Iterable[object]) -> str:
    """The end of an error message: the closest names first if any is close, else all of them."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(given), names, n=3)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)}?"
    shown = ", ".join(repr(name) for name in names[:20])
    return f"choose from {shown}{' ...' if len(names) > 20 else ''}."
