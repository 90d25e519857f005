"""Language models: time against a plain loop that computes full logits, with the same scores.

`python -m benchmarks.generation` runs occlusion and integrated gradients on a GPT-2 of 6 layers and width 384 with a
vocabulary of 50,257, 96 prompt tokens and 16 target tokens, in batches of 16, and prints one line each: seconds of the
loop, of ours, the ratio of the two (median of pairs), and the largest difference of the scores.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers as hf

from benchmarks.overhead import ratio
from interpreto import IntegratedGradients, Occlusion
from tests.models import tokenizer

BATCH, PROMPT, TARGETS, STEPS = 16, 96, 16, 50


def model() -> Any:
    torch.manual_seed(0)
    config = hf.GPT2Config(n_embd=384, n_layer=6, n_head=6, vocab_size=50257, bos_token_id=None, eos_token_id=None)
    return hf.GPT2LMHeadModel(config).eval()


def tokens() -> list[int]:
    return torch.randint(3, 390, (PROMPT + TARGETS,), generator=torch.Generator().manual_seed(0)).tolist()


def plain_occlusion(gpt: Any, ids: list[int], stand_in: int) -> torch.Tensor:
    """Every position hidden in turn, logits at all positions."""
    row = torch.tensor(ids)
    rows = row.repeat(len(ids) + 1, 1)
    rows[torch.arange(len(ids)) + 1, torch.arange(len(ids))] = stand_in
    places = torch.arange(PROMPT, len(ids))
    found = []
    with torch.no_grad():
        for some in rows.split(BATCH):
            logits = gpt(input_ids=some).logits
            found.append(logits[:, places - 1, row[places]])
    scores = torch.cat(found)
    return (scores[0] - scores[1:]).T


def plain_gradients(gpt: Any, ids: list[int]) -> torch.Tensor:
    """Integrated gradients from zeros, one backward per target through logits at all positions."""
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


def lines() -> Iterator[str]:
    gpt, words, ids = model(), tokenizer("gpt2"), tokens()
    shared = {"granularity": "all-tokens", "batch_size": BATCH, "show_progress": False}
    prompt, continuation = {"input_ids": torch.tensor([ids[:PROMPT]])}, tuple(ids[PROMPT:])
    words = copy.deepcopy(words)
    words.model_max_length = 1024
    cases = {
        "Occlusion": (Occlusion(gpt, words, **shared), partial(plain_occlusion, gpt, ids, words.unk_token_id), 3),
        "IntegratedGradients": (
            IntegratedGradients(gpt, words, n_steps=STEPS, baseline="zeros", **shared),
            partial(plain_gradients, gpt, ids),
            1,
        ),
    }
    for name, (explain, loop, repeats) in cases.items():
        found, slow, fast = ratio(loop, partial(explain, prompt, continuation), repeats)
        ours, theirs = explain(prompt, continuation)[0].attributions, loop()
        seen = ~ours.isnan()
        difference = float((ours - theirs)[seen].abs().max())
        yield f"| {name} | {slow:.2f} | {fast:.2f} | {found:.2f} x | {difference:.1e} |"


if __name__ == "__main__":
    torch.set_num_threads(2)
    print("| method | plain loop, s | ours, s | times faster | largest difference |\n|---|---|---|---|---|")
    for line in lines():
        print(line, flush=True)
