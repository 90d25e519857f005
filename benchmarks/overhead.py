"""Time that the pipeline adds to the bare model, on the same rows in the same process.

`python -m benchmarks.overhead [overhead] [bf16] [batching]` prints one row per case: the median ratio of the method's
time to that of the bare model running as many rows in batches of the same size (forward and backward for methods that
take gradients).
Runs of the two alternate, so that a drift of the machine affects both.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers as hf
from PIL import Image

from benchmarks.tables import Table
from interpreto import IntegratedGradients, KernelShap, Occlusion, Saliency, zoo

BATCH = 16
# KernelShap has few samples per unit here, and warns; only its time is measured.
warnings.filterwarnings("ignore", message="n_samples=")


def bert(layers: int, width: int) -> tuple[Any, Any]:
    tokenizer = hf.AutoTokenizer.from_pretrained(zoo.path("reviews-bert"))
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32,
        intermediate_size=4 * width, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return hf.BertForSequenceClassification(config).eval(), tokenizer


def vit(layers: int, width: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, intermediate_size=4 * width,
        image_size=224, patch_size=16,
    )  # fmt: skip
    processor = hf.ViTImageProcessor(size={"height": 224, "width": 224})
    return hf.ViTForImageClassification(config).eval(), processor


def glorot(model: Any) -> None:
    """Initialize weights as in the ViT paper.

    With the standard deviation 0.02 of transformers, a single patch hardly influences a model of this width.
    """
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)


def text_of(tokenizer: Any, tokens: int) -> str:
    """A text with exactly this many tokens, including special ones."""
    # "film" is one token; two more are [CLS] and [SEP].
    return " ".join(["film"] * (tokens - 2))


class Bare:
    """The model on precomputed rows, as a user would write it."""

    def __init__(self, model: Any, processor: Any, sample: Any, gradients: bool) -> None:
        self.model, self.gradients = model, gradients
        self.fields = dict(processor(sample, return_tensors="pt"))
        self.name = "pixel_values" if "pixel_values" in self.fields else "inputs_embeds"

    def __call__(self, rows: int) -> None:
        for start in range(0, rows, BATCH):
            count = min(BATCH, rows - start)
            fields = {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in self.fields.items()}
            if not self.gradients:
                with torch.no_grad():
                    self.model(**fields)
                continue
            if self.name == "inputs_embeds":
                fields[self.name] = self.model.get_input_embeddings()(fields.pop("input_ids")).detach()
            fields[self.name].requires_grad_()
            torch.autograd.grad(self.model(**fields).logits[:, 0].sum(), fields[self.name])


def pairs(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> list[tuple[float, float]]:
    """Seconds of alternating runs; which of the two comes first alternates too."""
    # Warm up.
    one(), other()
    times = []
    for number in range(repeats):
        first, second = (one, other) if number % 2 == 0 else (other, one)
        begin = time.perf_counter()
        first()
        middle = time.perf_counter()
        second()
        seconds = (middle - begin, time.perf_counter() - middle)
        times.append(seconds if first is one else seconds[::-1])
    return times


def ratio(one: Callable[[], Any], other: Callable[[], Any], repeats: int = 7) -> tuple[float, float, float]:
    """The median of the pairwise ratios of two runs' times, and each one's median seconds."""
    times = pairs(one, other, repeats)
    return (
        statistics.median(first / second for first, second in times),
        statistics.median(first for first, _ in times),
        statistics.median(second for _, second in times),
    )


METHODS = {
    "Occlusion": (Occlusion, False),
    "KernelShap": (partial(KernelShap, n_samples=512), False),
    "IntegratedGradients": (partial(IntegratedGradients, n_steps=50), True),
}


def overhead() -> Iterator[tuple[Any, ...]]:
    """Each method against the bare model."""
    for size, (layers, narrow, wide) in {"large": (6, 384, 192), "small": (2, 64, 64)}.items():
        for name, (model, processor), sample in (
            ("BERT, 64 tokens", bert(layers, narrow), text_of(None, 64)),
            ("ViT, 224 px", vit(layers, wide), Image.effect_noise((224, 224), 80).convert("RGB")),
        ):
            for title, (method, gradients) in METHODS.items():
                explain = method(model, processor, batch_size=BATCH, show_progress=False)
                rows = explain(sample, targets=0)[0].n_evaluations
                bare = Bare(model, processor, sample, gradients)
                factor, ours, bare_time = ratio(partial(explain, sample, targets=0), partial(bare, rows))
                yield title, f"{size} {name}", rows, bare_time, ours, factor


def bf16() -> Iterator[tuple[Any, ...]]:
    """Autocast against float32: speed and rank correlation."""
    from scipy.stats import spearmanr

    model, processor = vit(6, 192)
    glorot(model)
    sample = Image.effect_noise((224, 224), 80).convert("RGB")
    for title, (method, _) in METHODS.items():
        exact = method(model, processor, batch_size=BATCH, show_progress=False)
        fast = method(model, processor, batch_size=BATCH, show_progress=False, autocast=torch.bfloat16)
        factor, exact_time, fast_time = ratio(partial(exact, sample, targets=0), partial(fast, sample, targets=0), 3)
        one, other = (explain(sample, targets=0)[0].attributions.flatten() for explain in (exact, fast))
        agreement = spearmanr(one, other).statistic
        yield title, "large ViT, 224 px", exact_time, fast_time, factor, agreement


def batching() -> Iterator[tuple[Any, ...]]:
    """64 short texts of mixed lengths in one call, against one call for each text."""
    texts = [example.input for example in zoo.samples("reviews-bert", 64)]
    for size, (layers, width) in {"large": (6, 384), "small": (2, 64)}.items():
        model, tokenizer = bert(layers, width)
        few = partial(KernelShap, n_samples=128)
        for title, method in {"Saliency": Saliency, "Occlusion": Occlusion, "KernelShap": few}.items():
            explain = method(model, tokenizer, batch_size=32, show_progress=False)

            def each(explain: Any = explain) -> None:
                for text in texts:
                    explain(text, targets=0)

            repeats = 5 if size == "small" or title == "Saliency" else 2
            factor, batch_time, single_time = ratio(partial(explain, texts, targets=0), each, repeats)
            yield title, f"{size} BERT", single_time, batch_time, factor


PARTS = {
    "overhead": (
        overhead,
        {"method": "", "model": "", "rows": "d", "bare model, s": ".3f", "interpreto, s": ".3f", "ratio": ".3f"},
    ),
    "bf16": (
        bf16,
        {
            "method": "", "model": "", "float32, s": ".3f", "bfloat16, s": ".3f", "times faster": ".2f",
            "rank correlation": ".4f",
        },
    ),
    "batching": (
        batching,
        {"method": "", "model": "", "64 texts one by one, s": ".3f", "in one call, s": ".3f", "ratio": ".3f"},
    ),
}  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(2)
    for part in sys.argv[1:] or PARTS:
        rows, columns = PARTS[part]
        Table("overhead" if part == "overhead" else f"overhead-{part}", columns, rows(), n_keys=2).run()
