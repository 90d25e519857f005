"""Checks on an accelerator: numbers against the CPU's, moves of the working copy, threads, speed.

`python -m benchmarks.devices` needs CUDA. The numbers are checked on small random models of the tests, times are
measured on larger ones.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import transformers as hf

from benchmarks.overhead import ratio
from benchmarks.tables import Table
from interpreto import METHODS, KernelShap, LeGrad, Occlusion, zoo
from tests.causal_lms import causal_lm
from tests.models import TEXTS, image_model, light, some_images, text_model

DEVICE = "cuda"


def jobs() -> list[tuple[str, Any, Any, Any, Any]]:
    """Every method on every task that it supports: the method, model, processor, sample and target."""
    internals = {
        "RawAttention",
        "AttentionRollout",
        "AttentionSaliency",
        "AGCam",
        "GenericAttention",
        "LeGrad",
        "GradEclip",
    }
    jobs = []
    for method in METHODS:
        only_images = method.__name__ in ("GradCam", "XRAI")
        if not only_images:
            jobs.append((method, *text_model("bert"), TEXTS[1], 0))
        jobs.append((method, *image_model("vit"), some_images()[0], 0))
        if not only_images and method.__name__ not in internals:
            jobs.append((method, *causal_lm("llama"), "The plot was not good", " and we saw"))
    return jobs


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference as a share of the largest score."""
    scale = max(float(other.nan_to_num().abs().max()), 1e-6)
    return float((one.cpu() - other).nan_to_num().abs().max()) / scale


def numbers() -> Iterator[tuple[Any, ...]]:
    """Scores on the accelerator against the CPU's, with the model on the device or moved there for the call."""
    worst = {"model on the device": (0.0, ""), "device= for the call": (0.0, "")}
    moved, failed = 0, []
    for method, model, processor, sample, target in jobs():
        expected = light(method)(model, processor)(sample, target)[0].attributions
        # A copy, because the models of the tests are cached and shared.
        on_device = deepcopy(model).to(DEVICE)
        for name, explainer in (
            ("model on the device", light(method)(on_device, processor)),
            ("device= for the call", light(method, device=DEVICE)(model, processor)),
        ):
            try:
                # Twice: the second call uses the working copy of the first.
                outputs = [explainer(sample, target)[0] for _ in range(2)]
            except Exception as failure:
                where = f"{method.__name__} on {type(model).__name__}, {name}"
                failed.append(f"{where}: {type(failure).__name__}: {failure}")
                continue
            error = max(difference(output.attributions, expected) for output in outputs)
            worst[name] = max(worst[name], (error, f"{method.__name__} on {type(model).__name__}"))
        moved += any(parameter.device.type != "cpu" for parameter in model.parameters())
    yield "pairs of method and task", len(jobs()), None
    for name, (value, where) in worst.items():
        yield f"largest difference from the CPU, {name}", value, where
    yield "models that did not stay on the CPU", moved, None
    yield "failed", len(failed), "; ".join(failed) or None


def threads() -> Iterator[tuple[Any, ...]]:
    """Eight threads on one model on the accelerator, one explainer per method."""
    model, tokenizer = text_model("bert")
    model = deepcopy(model).to(DEVICE)
    explainers = [light(method)(model, tokenizer) for method in METHODS if method.__name__ not in ("GradCam", "XRAI")]
    expected = [explainer(TEXTS[1], 0)[0].attributions for explainer in explainers]

    def wrong(number: int) -> bool:
        chosen = number % len(explainers)
        return difference(explainers[chosen](TEXTS[1], 0)[0].attributions, expected[chosen]) > 1e-4

    with ThreadPoolExecutor(8) as pool:
        failures = list(pool.map(wrong, range(200)))
    yield f"wrong of 200 calls of {len(explainers)} methods by 8 threads", sum(failures), None


def seconds(act: Callable[[], object], repeats: int = 5) -> float:
    """The median time of a call until the device has finished."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        act()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def times() -> Iterator[tuple[Any, ...]]:
    """Time of calls on larger models: moves to the device, bfloat16, prefix caching."""
    torch.manual_seed(0)
    vit = hf.ViTForImageClassification(hf.ViTConfig(num_labels=10)).eval()
    processor = hf.ViTImageProcessor()
    image = some_images()[0].resize((224, 224))
    on_device = deepcopy(vit).to(DEVICE)
    for name, method in (("Occlusion", partial(Occlusion, batch_size=64)), ("LeGrad", LeGrad)):
        stays, moves = method(on_device, processor), method(vit, processor, device=DEVICE)
        half = method(on_device, processor, autocast=torch.bfloat16)
        plain, lower = stays(image, 0)[0].attributions, half(image, 0)[0].attributions
        # Spearman's rank correlation.
        ranks = torch.corrcoef(
            torch.stack([plain.flatten().argsort().argsort(), lower.flatten().argsort().argsort()]).float()
        )
        on_device_time, moved_time, half_time = (
            seconds(partial(explainer, image, 0)) for explainer in (stays, moves, half)
        )
        yield f"{name}, ViT-B/16", 1e3 * on_device_time, 1e3 * moved_time, 1e3 * half_time, ranks[0, 1]


def prefixes() -> Iterator[tuple[Any, ...]]:
    """Time of calls on a language model with and without prefix caching."""
    config = hf.LlamaConfig(
        vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=16, num_attention_heads=16,
        num_key_value_heads=4,
    )  # fmt: skip
    llama = hf.LlamaForCausalLM(config).to(DEVICE, torch.bfloat16).eval()
    words = hf.AutoTokenizer.from_pretrained(zoo.path("stories-gpt2"), model_max_length=2048)
    for method, count in ((Occlusion, 256), (Occlusion, 1024), (partial(KernelShap, n_samples=512), 256)):
        prompt = " ".join(["lamp", "ball", "garden", "rain"] * (count // 4))
        fast, slow = (method(llama, words, reuse_prefix=reuse, batch_size=64) for reuse in (True, False))
        factor, without_reuse, with_reuse = ratio(partial(slow, prompt, " lamp"), partial(fast, prompt, " lamp"), 3)
        reuse = fast(prompt, " lamp")[0].info["prefix_reuse"]
        name = method.func.__name__ if isinstance(method, partial) else method.__name__
        yield f"{name}, Llama of 0.2 billion, bfloat16", count, without_reuse, with_reuse, factor, str(reuse)


def memory() -> Iterator[tuple[Any, ...]]:
    """Memory of a working copy: none if the model is on the device already."""
    vit = hf.ViTForImageClassification(hf.ViTConfig(num_labels=10)).eval().to(DEVICE)
    before = torch.cuda.memory_allocated()
    explainer = Occlusion(vit, hf.ViTImageProcessor(), batch_size=1)
    explainer(some_images()[0], 0)
    taken = (torch.cuda.memory_allocated() - before) / 1e6
    size = sum(parameter.nbytes for parameter in vit.parameters()) / 1e6
    yield "megabytes that stay after a call", taken, f"of a model of {size:.0f} MB"


CHECKS = {"check": "", "result": ".3g", "details": ""}
TIMES = {"call": "", "there, ms": ".0f", "moved, ms": ".0f", "in bfloat16, ms": ".0f", "rank correlation": ".4f"}
PREFIXES = {
    "call": "", "words": "d", "without reuse, s": ".2f", "with reuse, s": ".2f", "times faster": ".2f", "reuse": "",
}  # fmt: skip


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs CUDA.")
    Table("devices", CHECKS, (row for part in (numbers, threads, memory) for row in part())).run()
    Table("devices-times", TIMES, times()).run()
    Table("devices-prefixes", PREFIXES, prefixes(), n_keys=2).run()


if __name__ == "__main__":
    main()
