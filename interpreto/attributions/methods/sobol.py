"""Sobol indices."""

from typing import Unpack, final

from interpreto.attributions.aggregations.masks import SobolIndices, SobolOrder
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity.units import Resize
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.sobol_design import SobolDesign
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class Sobol(Explainer):
    """Sobol indices: the share of the score's variance under random masking that is due to a unit.

    Total indices include a unit's interactions with other units, first-order indices only its own effect. They have no
    sign: evidence for and against a target cannot be distinguished. Images are masked on a coarse grid, whose indices
    are interpolated to the units.

    $$S_i = \\frac{V_{z_i}(E[f | z_i])}{V(f)}, \\qquad S_{T_i} = \\frac{E[V_{z_i}(f | z_{\\sim i})]}{V(f)}$$

    Args:
        n_samples: Largest number of evaluations. A design takes g + 2 for g units or cells, and as many designs are
            evaluated as fit.
        order: "total" or "first".
        grid_size: Number of cells along each side of an image, at most the number of units.
        resize: Interpolation from cells to the units of an image: "bilinear", "bicubic", "nearest" or "area".

    Source:
        Fel et al. 2021, *Look at the Variance!*, arXiv:2111.04138; estimators by Saltelli 2010 and Jansen 1999.

    Example:
        >>> from interpreto import Sobol, from_callables
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> Sobol(model)("so good a film")[0].attributions.round(decimals=1)
        tensor([[0., 1., 0., 0.]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        n_samples: int = 512,
        order: SobolOrder = "total",
        grid_size: int = 7,
        resize: Resize = "bilinear",
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Sobol, model, processor, options)
        design = self.setup.mask_perturbator(SobolDesign(n_samples, grid_size))
        # The estimators need the masks of the design itself, not the shares of units that rounded masks cover.
        self.plan = PerturbationPlan(design, SobolIndices(order), resize, use_raw_masks=True)
