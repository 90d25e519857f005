"""Eight threads of fifty calls for each family of methods, next to a thread that uses the model: how many are wrong.

`python -m benchmarks.threads` prints a table.
"""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.tables import Table
from tests.test_threads import CALLS, FAMILIES, THREADS, all_close, attributions_of


def rows() -> Iterator[tuple[Any, ...]]:
    for name, build in FAMILIES.items():
        begin = time.perf_counter()
        model, explainer, inputs, target = build()
        expected = [attributions_of(explainer, one, target) for one in inputs]
        # The arguments of the forward passes of one call, which the other thread repeats on the model. Dual encoders
        # are run tower by tower, so that none are recorded.
        calls = []
        handle = model.register_forward_pre_hook(
            lambda _m, args, kwargs, calls=calls: calls.append((args, kwargs)), with_kwargs=True
        )
        try:
            attributions_of(explainer, inputs[0], target)
        finally:
            handle.remove()
        expected_output = forward(model, *calls[0]) if calls else None
        stop, wrong, used, changed = threading.Event(), [], [], []

        def use(model=model, calls=calls, expected_output=expected_output, stop=stop, used=used, changed=changed):
            while calls and not stop.is_set():
                used.append(1)
                if not torch.allclose(forward(model, *calls[0]), expected_output, atol=1e-5):
                    changed.append(1)

        def work(number, explainer=explainer, inputs=inputs, target=target, expected=expected, wrong=wrong):
            draw = random.Random(number)
            for _ in range(CALLS):
                chosen = draw.randrange(len(inputs))
                if not all_close(attributions_of(explainer, inputs[chosen], target), expected[chosen]):
                    wrong.append(1)

        user = threading.Thread(target=use)
        user.start()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))
        stop.set()
        user.join()
        seconds = time.perf_counter() - begin
        yield name, THREADS * CALLS, len(wrong), len(used), len(changed), seconds


def forward(model, args, kwargs):
    """The model's first output. A key/value cache in the recorded arguments is left out, because calls change it."""
    arguments = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor | bool)}
    with torch.no_grad():
        out = model(*args, **{**arguments, **({"use_cache": False} if "use_cache" in arguments else {})})
    return out if isinstance(out, torch.Tensor) else out[0]


COLUMNS = {
    "family": "",
    "calls": "d",
    "wrong": "d",
    "the user's own forwards": "d",
    "changed": "d",
    "time, s": ".0f",
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    Table("threads", COLUMNS, rows()).run()
