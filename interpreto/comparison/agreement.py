"""Agreement between methods: rank correlation over all units, and overlap of the units with the highest scores."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from interpreto.attributions.result import AttributionOutput

Outputs = Mapping[str, Sequence[AttributionOutput | None]]


def rank_agreement(outputs: Outputs) -> Float[Tensor, "m m"]:
    """Spearman's rank correlation of the scores of units, averaged over samples and targets.

    0 for a method that gives all units of a sample the same score; NaN for two methods that never have the same units.
    """
    return _mean(outputs, _rank_correlations)


def top_agreement(outputs: Outputs, share: float = 0.1) -> Float[Tensor, "m m"]:
    """The share of the highest units that two methods have in common, averaged over samples and targets.

    Args:
        outputs: One list per method, with one entry per sample.
        share: Share of the units that count as highest, at least one unit. Of units with equal scores the first ones
            are taken.
    """
    return _mean(outputs, lambda scores: _overlaps(scores, share))


def _mean(outputs: Outputs, between) -> Float[Tensor, "m m"]:
    methods = list(outputs)
    total, count = torch.zeros(len(methods), len(methods)), torch.zeros(len(methods), len(methods))
    for sample in zip(*outputs.values(), strict=True):
        for group in _groups(sample):
            results = [output for number in group if (output := sample[number]) is not None]
            all_scores = [output.ranking_scores.flatten(1).double() for output in results]
            indices = torch.tensor(group)
            for target in range(len(results[0].target_names)):
                scores = torch.stack([scores[target] for scores in all_scores])
                # Units that are part of a generated target, or come after it, have no score.
                scores = scores[:, ~scores.isnan().any(0)]
                # A single unit has no ranking.
                if scores.shape[1] < 2:
                    continue
                total[indices[:, None], indices] += between(scores).float()
                count[indices[:, None], indices] += 1
    return total / count.where(count > 0, torch.nan)


def _groups(sample: Sequence[AttributionOutput | None]) -> list[list[int]]:
    """The indices of the methods that have an output for the sample, grouped by units and targets."""
    groups: dict[object, list[int]] = {}
    for number, output in enumerate(sample):
        if output is not None:
            units = output.require_boxes().numpy().tobytes() if output.is_image else tuple(output.elements)
            segments = None if output.unit_map is None else output.unit_map.numpy().tobytes()
            groups.setdefault((output.target_names, output.attributions.shape, units, segments), []).append(number)
    return list(groups.values())


def _rank_correlations(scores: Float[Tensor, "m g"]) -> Float[Tensor, "m m"]:
    ranks = torch.from_numpy(rankdata(scores.numpy(), axis=1))
    centred = ranks - ranks.mean(1, keepdim=True)
    # Constant scores have ranks of norm 0 and a correlation of 0 with all others, instead of NaN.
    normalised = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    correlations = normalised @ normalised.T
    return correlations.fill_diagonal_(1.0)


def _overlaps(scores: Float[Tensor, "m g"], share: float) -> Float[Tensor, "m m"]:
    count = max(1, round(share * scores.shape[1]))
    top = torch.zeros_like(scores)
    # A stable sort, because topk breaks ties arbitrarily.
    top.scatter_(1, scores.argsort(dim=1, descending=True, stable=True)[:, :count], 1.0)
    return top @ top.T / count
