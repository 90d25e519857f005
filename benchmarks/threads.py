"""Eight threads of fifty calls, for each family of methods, beside a thread that uses the model: how many are wrong.

`python -m benchmarks.threads` prints a table.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from tests.test_threads import CALLS, FAMILIES, THREADS, alike, mapped


def main() -> None:
    torch.set_num_threads(1)
    print("| family | calls | wrong | the user's own forwards | changed | seconds |\n|---|---|---|---|---|---|")
    for name, build in FAMILIES.items():
        begin = time.perf_counter()
        model, explainer, inputs, target = build()
        expected = [mapped(explainer, one, target) for one in inputs]
        given = []
        handle = model.register_forward_pre_hook(
            lambda _m, args, kwargs, given=given: given.append((args, kwargs)), with_kwargs=True
        )
        try:
            mapped(explainer, inputs[0], target)
        finally:
            handle.remove()
        own = forward(model, *given[0]) if given else None
        stop, wrong, used, changed = threading.Event(), [], [], []

        def use(model=model, given=given, own=own, stop=stop, used=used, changed=changed):
            while given and not stop.is_set():
                used.append(1)
                if not torch.allclose(forward(model, *given[0]), own, atol=1e-5):
                    changed.append(1)

        def work(number, explainer=explainer, inputs=inputs, target=target, expected=expected, wrong=wrong):
            draw = random.Random(number)
            for _ in range(CALLS):
                chosen = draw.randrange(len(inputs))
                if not alike(mapped(explainer, inputs[chosen], target), expected[chosen]):
                    wrong.append(1)

        user = threading.Thread(target=use)
        user.start()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))
        stop.set()
        user.join()
        seconds = time.perf_counter() - begin
        counts = f"{THREADS * CALLS} | {len(wrong)} | {len(used)} | {len(changed)}"
        print(f"| {name} | {counts} | {seconds:.0f} |", flush=True)


def forward(model, args, kwargs):
    """The model's first output as the user sees it; a cache of an earlier call is left out."""
    plain = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor | bool)}
    with torch.no_grad():
        out = model(*args, **{**plain, **({"use_cache": False} if "use_cache" in plain else {})})
    return out if isinstance(out, torch.Tensor) else out[0]


if __name__ == "__main__":
    main()
