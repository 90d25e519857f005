"""Occlusion."""

from typing import Any, Unpack, final

from interpreto.attributions.aggregations.masks import Differences
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.perturbations.masks import OneAtATime
from interpreto.attributions.recipes.hiding import Hiding
from interpreto.attributions.setup import Options, Setup


@final
class Occlusion(Explainer):
    """How much the score drops when one unit is hidden.

    The plainest question that one can ask a model, and one row per unit; units that stand in for each other get too
    little, since each is hidden while the others stay.

    $$\\phi_i = f(x) - f(x \\setminus i)$$

    Source:
        Zeiler and Fergus 2013, *Visualizing and Understanding Convolutional Networks*, arXiv:1311.2901, section 4.2.
    """

    def __init__(self, model: Any, processor: Any = None, **options: Unpack[Options]) -> None:
        self.setup = Setup.of(Occlusion, model, processor, options)
        self.recipe = Hiding(self.setup.hiding(OneAtATime()), Differences())
