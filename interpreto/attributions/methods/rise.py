"""RISE."""

from typing import Unpack, final

from interpreto.attributions.aggregations.masks import KeptMean
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.masks import SmoothMasks
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class Rise(Explainer):
    """The mean score over random masks that keep a unit.

    Large parts are masked at a time, so that redundant units get scores too. Images are masked by smooth random
    patterns, units of texts independently of each other.

    $$\\phi_i = E[f(x \\odot m) \\mid m_i = 1] - E[f(x \\odot m)]$$

    Args:
        n_samples: Number of masks.
        grid_size: Number of coarse cells along each side of an image's masks.
        keep_probability: Probability that a cell or unit is kept.
        centered: Whether the mean score over all masks is subtracted, as in the formula; the paper does not do so.

    Source:
        Petsiuk et al. 2018, *RISE*, arXiv:1806.07421, section 3.

    Example:
        >>> from interpreto import Rise, from_callables
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> Rise(model, centered=False)("so good a film")[0].attributions.round(decimals=1)
        tensor([[0.5000, 1.0000, 0.5000, 0.5000]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 2000,
        grid_size: int = 7,
        keep_probability: float = 0.5,
        centered: bool = True,
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Rise, model, processor, options)
        self.plan = PerturbationPlan(
            self.setup.mask_perturbator(SmoothMasks(n_samples, grid_size, keep_probability)), KeptMean(centered)
        )
