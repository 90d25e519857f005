"""KernelSHAP."""

from typing import Any, Unpack, final

from interpreto.attributions.aggregations.regression import ShapleyRegression
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.coalitions import Coalitions
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class KernelShap(Explainer):
    """Shapley values: the score difference between all and nothing, fairly divided among the units.

    The only division that is efficient (units sum to f(x) - f(empty)), symmetric, linear, and gives nothing to units
    without influence. Exact if 2^g <= `n_samples`; otherwise a regression on coalitions in complementary pairs, drawn
    without replacement, evenly over their sizes, with both ends as exact constraints.

    $$\\min_\\phi \\sum_z \\frac{g-1}{\\binom{g}{|z|} |z| (g-|z|)} \\left(f(z) - f(\\emptyset) - \\phi^\\top z\\right)^2
    \\quad \\text{with} \\quad \\sum_i \\phi_i = f(x) - f(\\emptyset)$$

    Args:
        n_samples: Number of rows, at most; four per unit is a sensible least.

    Source:
        Lundberg and Lee 2017, arXiv:1705.07874, theorem 2; pairs and constraints as in Covert and Lee 2020,
        arXiv:2012.01536; sizes as in Musco and Witter 2024, arXiv:2410.01917.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, *, n_samples: int = 512, **options: Unpack[Options]) -> None:
        self.setup = Setup.create(KernelShap, model, processor, options)
        self.plan = PerturbationPlan(self.setup.mask_perturbator(Coalitions(n_samples)), ShapleyRegression())
