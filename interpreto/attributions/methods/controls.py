"""Controls: scores that do not use the model, which methods are compared with."""

from collections.abc import Iterable
from typing import Unpack, final

from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.options import GradientOptions, Options
from interpreto.attributions.plans.model_independent import (
    CentreGaussianPlan,
    InputNormPlan,
    PositionPlan,
    RandomScoresPlan,
    TokenRarityPlan,
)
from interpreto.errors import OptionError, UnsupportedError
from interpreto.option_kinds import checks_options


@final
class RandomScores(Explainer):
    """Random scores, different for every sample.

    The value of a metric for these scores is its chance level.

    $$\\phi_i \\sim N(0, 1)$$

    Source:
        The usual control, as in Petsiuk et al. 2018, *RISE*, arXiv:1806.07421, and Hooker et al. 2018,
        arXiv:1806.10758.

    Example:
        >>> from interpreto import from_callables
        >>> from interpreto.attributions.methods import RandomScores
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> RandomScores(model)("so good a film")[0].attributions.shape
        torch.Size([1, 4])
    """

    @checks_options
    def __init__(self, model: object, processor: object = None, **options: Unpack[Options]) -> None:
        self.setup = Setup.create(RandomScores, model, processor, options)
        self.plan = RandomScoresPlan()


@final
class PositionOnly(Explainer):
    """Scores that decrease, or increase, linearly from the first unit to the last in reading order.

    A method that does not beat them on a data set may only have found that early, or late, units matter there.

    Args:
        ascending: Whether the last unit has the highest score. None: scores increase for generated texts, where the
            words just before a target matter most, and decrease elsewhere.

    Source:
        The lead baseline of text summarisation, as in Nenkova 2005, *Automatic Text Summarization of Newswire*.

    Example:
        >>> from interpreto import from_callables
        >>> from interpreto.attributions.methods import PositionOnly
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> PositionOnly(model)("a good film")[0].attributions
        tensor([[1.0000, 0.5000, 0.0000]])
    """

    @checks_options
    def __init__(
        self, model: object, processor: object = None, *, ascending: bool | None = None, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(PositionOnly, model, processor, options)
        self.plan = PositionPlan(ascending)


@final
class CentreGaussian(Explainer):
    """A Gaussian at the centre of every image, where photographers tend to place what matters.

    $$\\phi_i = \\exp\\left(-\\frac{\\|p_i - c\\|^2}{2 \\sigma^2}\\right)$$

    with the positions p of units and the centre c as shares of the image's height and width.

    Args:
        sigma: The standard deviation, as a share of the image's height and width.

    Source:
        Judd et al. 2009, *Learning to Predict Where Humans Look*, section 3.

    Example:
        >>> import numpy as np
        >>> from interpreto import from_callables
        >>> from interpreto.attributions.methods import CentreGaussian
        >>> CentreGaussian(from_callables(lambda x: x.mean((2, 3))))(np.ones((1, 1, 3)))[0].attributions
        tensor([[[0.4111, 1.0000, 0.4111]]])
    """

    @checks_options
    def __init__(
        self, model: object, processor: object = None, *, sigma: int | float = 0.25, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(CentreGaussian, model, processor, options)
        if not self.setup.wrapper.inputs.spatial:
            raise UnsupportedError("CentreGaussian is for images; PositionOnly is for texts and images.")
        self.plan = CentreGaussianPlan(float(sigma))


@final
class InputNorm(Explainer):
    """The norm of the model's input at each position: of the pixel values, or of the token embedding.

    Methods that multiply gradients by the input give similar scores if their gradients carry no information.

    $$\\phi_i = \\| x_i \\|$$

    Source:
        Adebayo et al. 2018, *Sanity Checks for Saliency Maps*, arXiv:1810.03292, section 5, on the effect of the input
        in such products.

    Example:
        >>> import numpy as np
        >>> from interpreto import from_callables
        >>> from interpreto.attributions.methods import InputNorm
        >>> InputNorm(from_callables(lambda x: x.mean((2, 3))))(np.array([[[-1.0, 2.0]]]))[0].attributions
        tensor([[[1., 2.]]])
    """

    @checks_options
    def __init__(self, model: object, processor: object = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(InputNorm, model, processor, options)
        self.plan = InputNormPlan(self.setup.gradient_input(), self.setup.score_reducer("norm"))


@final
class TokenFrequency(Explainer):
    """The rarity of a unit's tokens in a corpus: rare words carry most information, whatever the model.

    $$\\phi_i = \\operatorname{mean}_{k \\in i} \\log \\frac{N + V}{n_k + 1}$$

    with the number n_k of occurrences of token k in the corpus, its number N of tokens and its number V of different
    tokens.

    Args:
        corpus: The texts in which tokens are counted, at least one.

    Source:
        Spärck Jones 1972, *A statistical interpretation of term specificity*, with counts of tokens.

    Example:
        >>> from interpreto import from_callables
        >>> from interpreto.attributions.methods import TokenFrequency
        >>> model = from_callables(lambda texts: [[text.count("good")] for text in texts], texts=True)
        >>> TokenFrequency(model, corpus=["a film", "a good film"])("a good film")[0].attributions
        tensor([[1.3863, 1.7918, 1.3863]])
    """

    @checks_options
    def __init__(
        self,
        model: object,
        processor: object = None,
        *,
        corpus: Iterable[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.setup = Setup.create(TokenFrequency, model, processor, options)
        if self.setup.wrapper.inputs.spatial:
            raise UnsupportedError("TokenFrequency is for texts: images have no tokens to count.")
        if not corpus:
            raise OptionError("TokenFrequency needs corpus=, the texts in which tokens are counted.")
        self.plan = TokenRarityPlan.from_texts(map(self.setup.wrapper.require_tokens.tokenize, corpus))
