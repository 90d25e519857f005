"""How much methods agree with each other: by the ranks of all units, and by the units on top."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from interpreto.attributions.result import AttributionOutput

Outputs = Mapping[str, Sequence[AttributionOutput | None]]


def rank_agreement(outputs: Outputs) -> Float[Tensor, "m m"]:
    """Spearman's correlation of the scores of units, the mean over samples and targets.

    0 where one of two methods gives all units the same; NaN where no sample has both in the same units.
    """
    return _mean(outputs, _rank_correlations)


def top_agreement(outputs: Outputs, share: float = 0.1) -> Float[Tensor, "m m"]:
    """The part of the highest units that two methods have in common, the mean over samples and targets.

    Args:
        outputs: One list per method, one entry per sample.
        share: Which part of the units counts as highest, at least one unit. Of units with the same score the first
            ones are taken.
    """
    return _mean(outputs, lambda scores: _overlaps(scores, share))


def _mean(outputs: Outputs, between) -> Float[Tensor, "m m"]:
    methods = list(outputs)
    total, count = torch.zeros(len(methods), len(methods)), torch.zeros(len(methods), len(methods))
    for sample in zip(*outputs.values(), strict=True):
        for group in _groups(sample):
            there = [output for number in group if (output := sample[number]) is not None]
            ranked = [output.ranking_scores.flatten(1).double() for output in there]
            grid = torch.tensor(group)
            for target in range(len(there[0].target_names)):
                scores = torch.stack([scores[target] for scores in ranked])
                scores = scores[:, ~scores.isnan().any(0)]
                if scores.shape[1] < 2:
                    continue
                total[grid[:, None], grid] += between(scores).float()
                count[grid[:, None], grid] += 1
    return total / count.where(count > 0, torch.nan)


def _groups(sample: Sequence[AttributionOutput | None]) -> list[list[int]]:
    """The numbers of methods that say something of the sample, those with the same units and targets together."""
    groups: dict[object, list[int]] = {}
    for number, output in enumerate(sample):
        if output is not None:
            units = tuple(output.elements) if isinstance(output.elements, list) else output.elements.numpy().tobytes()
            segments = None if output.unit_map is None else output.unit_map.numpy().tobytes()
            groups.setdefault((output.target_names, output.attributions.shape, units, segments), []).append(number)
    return list(groups.values())


def _rank_correlations(scores: Float[Tensor, "m g"]) -> Float[Tensor, "m m"]:
    ranks = torch.from_numpy(rankdata(scores.numpy(), axis=1))
    centred = ranks - ranks.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    found = unit @ unit.T
    return found.fill_diagonal_(1.0)


def _overlaps(scores: Float[Tensor, "m g"], share: float) -> Float[Tensor, "m m"]:
    count = max(1, round(share * scores.shape[1]))
    top = torch.zeros_like(scores)
    top.scatter_(1, scores.argsort(dim=1, descending=True, stable=True)[:, :count], 1.0)
    return top @ top.T / count
