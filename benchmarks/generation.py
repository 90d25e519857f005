"""Language models: time and scores against a plain loop that computes full logits.

`python -m benchmarks.generation [time] [position] [memory]` works on a GPT-2 of 6 layers and width 384 with a
vocabulary of 50,257, in batches of 16.

- time: Occlusion and Integrated Gradients of 96 prompt tokens and 16 target tokens: seconds of the loop and of
  interpreto, the ratio of the two (median of pairs), and the largest difference of the scores.
- position: seconds of Occlusion of 16 words, by their position in the prompt.
- memory: the peak of explaining a prompt of 1,024 tokens against that of one forward pass of a batch of such prompts
  without logits, each in a process of its own.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers as hf

from benchmarks.memory import taken
from benchmarks.overhead import ratio
from benchmarks.tables import Table
from interpreto import IntegratedGradients, KernelShap, Occlusion, zoo

BATCH, PROMPT, TARGETS, STEPS = 16, 96, 16, 50


def model() -> Any:
    torch.manual_seed(0)
    config = hf.GPT2Config(n_embd=384, n_layer=6, n_head=6, vocab_size=50257, bos_token_id=None, eos_token_id=None)
    return hf.GPT2LMHeadModel(config).eval()


def tokenizer() -> Any:
    return hf.AutoTokenizer.from_pretrained(zoo.path("stories-gpt2"), model_max_length=LONG)


def tokens() -> list[int]:
    return torch.randint(3, 390, (PROMPT + TARGETS,), generator=torch.Generator().manual_seed(0)).tolist()


def plain_occlusion(gpt: Any, ids: list[int], replacement: int) -> torch.Tensor:
    """Occlusion of every position, with logits at all positions."""
    row = torch.tensor(ids)
    rows = row.repeat(len(ids) + 1, 1)
    rows[torch.arange(len(ids)) + 1, torch.arange(len(ids))] = replacement
    places = torch.arange(PROMPT, len(ids))
    blocks = []
    with torch.no_grad():
        for some in rows.split(BATCH):
            logits = gpt(input_ids=some).logits
            blocks.append(logits[:, places - 1, row[places]])
    scores = torch.cat(blocks)
    return (scores[0] - scores[1:]).T


def plain_gradients(gpt: Any, ids: list[int]) -> torch.Tensor:
    """Integrated Gradients from zeros, one backward pass per target through logits at all positions."""
    row = torch.tensor(ids)
    embeddings = gpt.transformer.wte(row).detach()
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(STEPS))
    nodes, weights = ((nodes + 1) / 2).float(), (weights / 2).float()
    total = torch.zeros(TARGETS, *embeddings.shape)
    for some, weight in zip(nodes.split(BATCH), weights.split(BATCH), strict=True):
        points = (some[:, None, None] * embeddings).requires_grad_()
        logits = gpt(inputs_embeds=points).logits
        for target in range(TARGETS):
            place = PROMPT + target
            (gradient,) = torch.autograd.grad(logits[:, place - 1, ids[place]].sum(), points, retain_graph=True)
            total[target] += torch.einsum("p,pld->ld", weight, gradient) * embeddings
    return total.sum(-1)


def lines() -> Iterator[tuple[Any, ...]]:
    gpt, words, ids = model(), tokenizer(), tokens()
    shared = {"granularity": "all-tokens", "batch_size": BATCH, "show_progress": False}
    prompt, continuation = {"input_ids": torch.tensor([ids[:PROMPT]])}, tuple(ids[PROMPT:])
    cases = {
        # The loop replaces tokens too; the default removal of language models changes the attention mask.
        "Occlusion": (
            Occlusion(gpt, words, removal="mask", **shared),
            partial(plain_occlusion, gpt, ids, words.mask_token_id),
            3,
        ),
        "IntegratedGradients": (
            IntegratedGradients(gpt, words, n_steps=STEPS, baseline="zeros", **shared),
            partial(plain_gradients, gpt, ids),
            1,
        ),
    }
    for name, (explain, loop, repeats) in cases.items():
        factor, slow, fast = ratio(loop, partial(explain, prompt, continuation), repeats)
        ours, theirs = explain(prompt, continuation)[0].attributions, loop()
        # Tokens after a target cannot influence it: NaN in ours, 0 in the loop.
        finite = ~ours.isnan()
        difference = float((ours - theirs)[finite].abs().max())
        yield name, slow, fast, factor, difference


def by_position(length: int = 512, count: int = 16) -> Iterator[tuple[Any, ...]]:
    """Time of Occlusion of `count` words, by their position in the prompt."""
    gpt, words = model(), tokenizer()
    prompt = " ".join(["lamp", "ball", "garden", "rain"] * (length // 4))
    spans = words(prompt, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    for begin in (0, len(spans) // 4, len(spans) // 2, 3 * len(spans) // 4, len(spans) - count):
        segments = {str(unit): spans[unit] for unit in range(begin, begin + count)}
        explain = Occlusion(gpt, words, segments=segments, batch_size=BATCH, show_progress=False)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            explain(prompt, targets=" lamp")
            seconds.append(time.perf_counter() - start)
        # The first call makes the working copy and checks the model.
        yield f"words {begin} to {begin + count - 1} of {len(spans)}", statistics.median(seconds[1:])


LONG = 1024


def peak_of_a_forward() -> float:
    """Gigabytes of a forward pass of a batch of long prompts, without logits, above the loaded model."""
    gpt = model()
    ids = torch.randint(3, 390, (BATCH, LONG))
    with torch.no_grad():
        # Warm up: the first run allocates memory that stays allocated.
        gpt.transformer(input_ids=ids[:, :8], use_cache=False)
        return taken(lambda: gpt.transformer(input_ids=ids, use_cache=False))


def peak_of(method: Any) -> float:
    """Gigabytes of explaining four tokens after a long prompt, above the loaded model."""
    gpt, words = model(), tokenizer()
    ids = torch.randint(3, 390, (LONG,)).tolist()
    prompt, continuation = {"input_ids": torch.tensor([ids[: LONG - 4]])}, tuple(ids[LONG - 4 :])
    explain = method(gpt, words, granularity="all-tokens", batch_size=BATCH, show_progress=False)
    # Warm up: the first call makes the working copy and checks the model.
    explain({"input_ids": torch.tensor([ids[:8]])}, tuple(ids[8:10]))
    return taken(lambda: explain(prompt, continuation))


def memory() -> Iterator[tuple[Any, ...]]:
    """Peak memory, each in a fresh process."""
    few = partial(KernelShap, n_samples=64)
    tasks = {
        "forward": peak_of_a_forward,
        "Occlusion": partial(peak_of, Occlusion),
        "KernelShap": partial(peak_of, few),
    }
    peaks = {}
    for name, task in tasks.items():
        # The peak of a process includes all that ran in it before.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[name] = pool.apply(task)
        yield name, peaks[name], peaks[name] / peaks["forward"]


TABLES = {
    "time": (
        {
            "method": "", "plain loop, s": ".2f", "interpreto, s": ".2f", "times faster": ".2f",
            "largest difference": ".1e",
        },
        lines,
    ),
    "position": ({"masked words": "", "time, s": ".2f"}, by_position),
    "memory": ({"what": "", "peak above the model, GB": ".3f", "ratio to a forward pass": ".2f"}, memory),
}  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(2)
    for name in sys.argv[1:] or TABLES:
        columns, rows = TABLES[name]
        Table(f"generation-{name}", columns, rows()).run()
