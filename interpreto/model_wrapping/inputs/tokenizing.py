"""Copies of users' tokenizers, called by one thread at a time.

A fast tokenizer stores the truncation and padding of its last call. If another thread calls it between setting and
using them, the wrong text is truncated, or none. The user's tokenizer is therefore copied, and calls of a copy are
serialized by a lock.
"""

import copy
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from interpreto.typing import Tokenizer

_COPIES: WeakSet[Any] = WeakSet()
"""Copies made here, which need not be copied again."""
_LOCK = threading.Lock()


def tokenized(tokenizer: Any, *texts: str, **options: Any) -> Mapping[str, Any]:
    """The encoding of a text or a pair of texts."""
    with _LOCK:
        return tokenizer(*texts, **options)


def with_own_tokenizer(processor: object) -> Any:
    """A copy of a user's tokenizer; `(image processor, tokenizer)` for a processor that contains both."""
    if isinstance(processor, tuple) and len(processor) == 2:
        return processor[0], _copied(processor[1])
    if isinstance(processor, Tokenizer):
        return _copied(processor)
    tokenizer, image_processor = (getattr(processor, name, None) for name in ("tokenizer", "image_processor"))
    if not isinstance(tokenizer, Tokenizer):
        return processor
    return _copied(tokenizer) if image_processor is None else (image_processor, _copied(tokenizer))


def _copied(tokenizer: object) -> Any:
    if tokenizer is None or tokenizer in _COPIES:
        return tokenizer
    try:
        with _LOCK:
            copied = copy.deepcopy(tokenizer)
    except TypeError:
        # A tokenizer that cannot be copied is used itself; our own calls are still serialized.
        return tokenizer
    _COPIES.add(copied)
    return copied
