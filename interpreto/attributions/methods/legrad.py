"""LeGrad: what every layer's output says of the target, by the gradient of that for the layer's attention."""

from collections.abc import Sequence
from typing import Any, Unpack, final

from interpreto.attributions.aggregations.attention_reduction import Legrad, without_favourites
from interpreto.attributions.assembly import InsideOptions, Setup
from interpreto.attributions.explainer import Explainer
from interpreto.model_wrapping.capture_request import AttentionRequest
from interpreto.option_kinds import checks_options


@final
class LeGrad(Explainer):
    """Positive gradients for the attention of each layer, of the score that the layer's own output would have.

    The output \\(Z^l\\) of a block is scored as if it were the last one, and reaches the attention of that block alone:

    $$\\phi = \\sum_l \\operatorname{mean}_{h, q} \\operatorname{relu}\\!\\left(
    \\frac{\\partial s(Z^l)}{\\partial A^l}\\right)$$

    On the image side of a CLIP-type model s is the similarity of the mean over all positions; on classifiers and texts
    it is the score of what the model itself reads. Where an attention pooler makes one vector of all positions (SigLIP)
    the attention is the pooler's, its one row that is read, once for every layer's output; for SigLIP, places that are
    above 0.8 in the map of the prompt "a photo of a", scaled to [0, 1], are set to 0.

    Args:
        layers: From this layer on, or these; by default the last two, or the one that there is.

    Source:
        Bousselham et al. 2024, *LeGrad*, arXiv:2404.03214, sections 3.2 and 3.3; numbers as released (`legrad_torch`
        1.1), up to the scale of the similarity and the scaling to [0, 1], which is for display.
    """

    @checks_options
    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        layers: int | Sequence[int] | None = None,
        **options: Unpack[InsideOptions],
    ) -> None:
        self.setup = Setup.create(LeGrad, model, processor, options)
        wrapper = self.setup.wrapper
        probe = AttentionRequest(
            Legrad(),
            layers,
            per_block_objective=True,
            mean=wrapper.mean_readout,
            empty_prompt=wrapper.empty_prompt,
            corrected=without_favourites,
        )
        self.plan = self.setup.internals_plan(probe)
