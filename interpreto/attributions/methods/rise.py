"""RISE."""

from typing import Any, Unpack, final

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

    Large parts are hidden at once, so that redundant evidence is found too. Images are masked by smooth random
    patterns, texts by hiding units independently.

    $$\\phi_i = E[f(x \\odot m) \\mid m_i = 1] - E[f(x \\odot m)]$$

    Args:
        n_samples: Number of masks.
        grid_size: Coarse cells along each side of an image's masks.
        keep_probability: Probability that a cell or unit stays visible.
        centered: Whether the mean score over all masks is subtracted, as above; the paper leaves it in.

    Source:
        Petsiuk et al. 2018, *RISE*, arXiv:1806.07421, section 3.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
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
