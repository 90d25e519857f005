"""Tokenizers of a wrapper's own.

A fast tokenizer keeps the truncation and padding of its last call: another thread's call between setting and using
them cuts the wrong text, or cuts none. So the user's tokenizer is copied, and calls of the copy wait for one another.
"""

import copy
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from interpreto.typing import Tokenizer

_OWN: WeakSet[Any] = WeakSet()
"""Copies, which need not be copied again."""
_LOCK = threading.Lock()


def tokenized(tokenizer: Any, *texts: str, **options: Any) -> Mapping[str, Any]:
    """What a tokenizer makes of a text or a pair of texts."""
    with _LOCK:
        return tokenizer(*texts, **options)


def with_own_tokenizer(processor: Any) -> Any:
    """A user's tokenizer as a copy; of a processor that has more, `(image processor, tokenizer)`."""
    if isinstance(processor, tuple) and len(processor) == 2:
        return processor[0], _copied(processor[1])
    if isinstance(processor, Tokenizer):
        return _copied(processor)
    inner, images = (getattr(processor, name, None) for name in ("tokenizer", "image_processor"))
    if not isinstance(inner, Tokenizer):
        return processor
    return _copied(inner) if images is None else (images, _copied(inner))


def _copied(tokenizer: Any) -> Any:
    if tokenizer is None or tokenizer in _OWN:
        return tokenizer
    try:
        with _LOCK:
            own = copy.deepcopy(tokenizer)
    except TypeError:
        # One that holds what cannot be copied is used itself; calls of ours still wait for one another.
        return tokenizer
    _OWN.add(own)
    return own
