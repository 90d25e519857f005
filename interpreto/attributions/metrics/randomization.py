"""Model randomisation: does an attribution depend on what the model has learned?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.metrics.fidelity import correlation
from interpreto.attributions.metrics.measured import Curve, Measured, Needs
from interpreto.attributions.metrics.modelled import check_method, put_back
from interpreto.attributions.perturbations.masks import at_least
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import InputError, UnsupportedError


class ModelRandomization:
    """Rank correlation of attributions with those of the same model with random weights (Adebayo et al. 2018,
    arXiv 1810.03292).

    Layers are randomised from the top down, a further part of them at every step: a weight matrix is drawn from a
    normal distribution with its own mean and standard deviation, a vector (of biases, of a normalisation) is
    shuffled. The value is Spearman's correlation of the absolute attributions once all layers are random, 0 where one
    of them is constant; `curves` hold it for every step, x the share of layers that is random. Low is good: an
    attribution that stays the same does not tell of the model. The authors compare images; here units are compared,
    in the units of the outputs.

    The model is randomised in place and put back.

    Args:
        method: A method on the model, as it explained the outputs.
        n_steps: In how many steps layers are randomised.
        seed: Where randomness starts.
    """

    needs: ClassVar[Needs] = Needs.METHOD
    higher_is_better: ClassVar[bool] = False

    def __init__(self, method: Explainer, *, n_steps: int = 1, seed: int = 0) -> None:
        at_least("n_steps", n_steps, 1)
        self.method, self.n_steps, self.seed = method, n_steps, seed

    def evaluate(self, outputs: AttributionOutput | Sequence[AttributionOutput], inputs: Any = None) -> Measured:
        """Measure attributions of this method.

        Args:
            outputs: What the method said.
            inputs: The samples, in the same order; None takes the raw inputs that the outputs keep.

        Raises:
            InputError: if outputs and method do not belong together.
        """
        outputs = check_method(outputs, self.method)
        samples, specs = put_back(outputs, inputs)
        model = self.method.setup.wrapper.module
        if model is None:
            raise UnsupportedError("ModelRandomization needs weights to randomise; this model is a function.")
        layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
        steps: list[list[list[float]]] = []
        rows = 0
        for step in range(1, self.n_steps + 1):
            top = layers[len(layers) - round(len(layers) * step / self.n_steps) :]
            with _randomised(top, self.seed):
                others = self.method.explain(samples, specs)
            rows += sum(other.n_rows for other in others)
            steps.append([_correlations(*pair) for pair in zip(outputs, others, strict=True)])
        x = torch.linspace(0, 1, self.n_steps + 1)
        curves = [
            [Curve(x, torch.tensor([1.0, *(step[number][target] for step in steps)])) for target in range(len(names))]
            for number, names in enumerate(output.target_names for output in outputs)
        ]
        values = [torch.tensor([float(curve.y[-1]) for curve in some]) for some in curves]
        return Measured(type(self).__name__, values, False, curves, rows)


def _correlations(output: AttributionOutput, other: AttributionOutput) -> list[float]:
    if output.attributions.shape != other.attributions.shape:
        raise InputError("The method cuts the inputs into other units than those of the outputs.")
    found = []
    for one, two in zip(output.attributions.flatten(1), other.attributions.flatten(1), strict=True):
        seen = ~(one.isnan() | two.isnan())
        pair = [scores[seen].abs() for scores in (one, two)]
        constant = any(len(scores) < 2 or bool((scores == scores[0]).all()) for scores in pair)
        found.append(0.0 if constant else correlation(*(torch.from_numpy(rankdata(scores.numpy())) for scores in pair)))
    return found


@contextmanager
def _randomised(layers: Sequence[nn.Module], seed: int) -> Iterator[None]:
    """Random weights for some layers, for a while."""
    own = {id(p): p for layer in layers for p in layer.parameters(recurse=False)}
    before = {key: parameter.detach().clone() for key, parameter in own.items()}
    rng = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter in own.values():
                parameter.copy_(_drawn(parameter, rng))
        yield
    finally:
        with torch.no_grad():
            for key, parameter in own.items():
                parameter.copy_(before[key])


def _drawn(parameter: Tensor, rng: torch.Generator) -> Tensor:
    if parameter.ndim < 2:
        flat = parameter.flatten()
        return flat[torch.randperm(len(flat), generator=rng).to(flat.device)].reshape(parameter.shape)
    values = parameter.float()
    noise = torch.randn(parameter.shape, generator=rng).to(values.device)
    return values.mean() + values.std() * noise
