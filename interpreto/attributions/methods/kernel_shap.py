"""KernelSHAP."""

from typing import Unpack, final

from interpreto.attributions.aggregations.regression import ShapleyRegression
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.coalitions import Coalitions
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class KernelShap(Explainer):
    """Shapley values: the score difference between the full and the empty sample, divided fairly among the units.

    They are the only attributions that are efficient (units sum to f(x) - f(empty)), symmetric, linear, and 0 for units
    without influence. Exact if 2^g <= `n_samples` for g units. Otherwise estimated by a regression on coalitions, which
    are drawn in complementary pairs, without replacement and evenly over their sizes. The empty and the full coalition
    are exact constraints.

    $$\\min_\\phi \\sum_z \\frac{g-1}{\\binom{g}{|z|} |z| (g-|z|)} \\left(f(z) - f(\\emptyset) - \\phi^\\top z\\right)^2
    \\quad \\text{with} \\quad \\sum_i \\phi_i = f(x) - f(\\emptyset)$$

    Args:
        n_samples: Largest number of evaluations; at least four per unit are recommended.

    Source:
        Lundberg and Lee 2017, arXiv:1705.07874, theorem 2; pairs and constraints as in Covert and Lee 2020,
        arXiv:2012.01536; sizes as in Musco and Witter 2024, arXiv:2410.01917.

    Example:
        >>> from interpreto import KernelShap, from_callables
        >>> model = from_callables(lambda texts: [[1.0 * ("not" in t or "bad" in t)] for t in texts], texts=True)
        >>> KernelShap(model)("not bad")[0].attributions
        tensor([[0.5000, 0.5000]])
    """

    @checks_options
    def __init__(
        self, model: object, processor: object = None, *, n_samples: int = 512, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(KernelShap, model, processor, options)
        self.plan = PerturbationPlan(self.setup.mask_perturbator(Coalitions(n_samples)), ShapleyRegression())
