"""Sobol indices."""

from typing import Any, Unpack, final

from interpreto.attributions.aggregations.masks import SobolIndices
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.granularity.units import Resize
from interpreto.attributions.options import Options
from interpreto.attributions.perturbations.mask_generators.sobol_design import SobolDesign
from interpreto.attributions.plans.perturbation import PerturbationPlan
from interpreto.option_kinds import checks_options


@final
class Sobol(Explainer):
    """The share of the score's variance under random masking that a unit is responsible for.

    Total indices count a unit's interactions with others, first-order ones only what it does alone. They have no sign:
    evidence for and against a target looks the same. Images are masked on a coarse grid and stretched to the units.

    $$S_i = \\frac{V_{z_i}(E[f | z_i])}{V(f)}, \\qquad S_{T_i} = \\frac{E[V_{z_i}(f | z_{\\sim i})]}{V(f)}$$

    Args:
        n_samples: Number of rows, at most: as many designs of g + 2 rows as fit, g units or cells.
        order: "total" or "first".
        grid_size: Cells along each side of an image, no more than it has units.
        resize: How the cells' scores reach the units of an image: "bilinear", "bicubic", "nearest" or "area".

    Source:
        Fel et al. 2021, *Look at the Variance!*, arXiv:2111.04138; estimators by Saltelli 2010 and Jansen 1999.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        n_samples: int = 512,
        order: str = "total",
        grid_size: int = 7,
        resize: Resize = "bilinear",
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(Sobol, model, processor, options)
        design = self.setup.mask_perturbator(SobolDesign(n_samples, grid_size))
        self.plan = PerturbationPlan(design, SobolIndices(order), resize, use_raw_masks=True)
