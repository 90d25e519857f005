"""Controls: scores that do not ask the model, against which methods are held."""

from collections.abc import Iterable
from typing import Any, Unpack, final

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
    """Random scores, other ones for every sample.

    What a metric gives to these is what it gives to chance.

    $$\\phi_i \\sim N(0, 1)$$

    Source:
        The usual control, as in Petsiuk et al. 2018, *RISE*, arXiv:1806.07421, and Hooker et al. 2018,
        arXiv:1806.10758.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, **options: Unpack[Options]) -> None:
        self.setup = Setup.create(RandomScores, model, processor, options)
        self.plan = RandomScoresPlan()


@final
class PositionOnly(Explainer):
    """Scores that fall, or rise, from the first unit to the last, in the order of reading.

    Args:
        ascending: Whether the last unit has the highest score. None: scores rise for generated texts, because the words
            just before a target matter most there, and fall elsewhere.

    Source:
        The lead baseline of text summarisation, as in Nenkova 2005, *Automatic Text Summarization of Newswire*.
    """

    @checks_options
    def __init__(
        self, model: Any, processor: Any = None, *, ascending: bool | None = None, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(PositionOnly, model, processor, options)
        self.plan = PositionPlan(ascending)


@final
class CentreGaussian(Explainer):
    """The same bump in the middle of every image: photographers put what matters there.

    $$\\phi_i = \\exp\\left(-\\frac{\\|p_i - c\\|^2}{2 \\sigma^2}\\right)$$

    with places p measured in sides of the image.

    Args:
        sigma: Sigma, as a share of the image's side.

    Source:
        Judd et al. 2009, *Learning to Predict Where Humans Look*, section 3.
    """

    @checks_options
    def __init__(
        self, model: Any, processor: Any = None, *, sigma: int | float = 0.25, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(CentreGaussian, model, processor, options)
        if self.setup.wrapper.modality != "image":
            raise UnsupportedError("CentreGaussian is for images: a text has no middle. PositionOnly is for both.")
        self.plan = CentreGaussianPlan(float(sigma))


@final
class InputNorm(Explainer):
    """The norm of what the model reads at each position: pixel values, token embeddings.

    What methods that multiply by the input show if their gradients say nothing.

    $$\\phi_i = \\| x_i \\|$$

    Source:
        Adebayo et al. 2018, *Sanity Checks for Saliency Maps*, arXiv:1810.03292, section 5, on the input's part in
        such products.
    """

    @checks_options
    def __init__(self, model: Any, processor: Any = None, **options: Unpack[GradientOptions]) -> None:
        self.setup = Setup.create(InputNorm, model, processor, options)
        self.plan = InputNormPlan(self.setup.gradient_input(), self.setup.score_reducer("norm"))


@final
class TokenFrequency(Explainer):
    """How rare a unit's tokens are in a corpus: rare words tell most, whatever the model.

    $$\\phi_i = \\operatorname{mean}_{k \\in i} \\log \\frac{N + V}{n_k + 1}$$

    with n occurrences of token k among the corpus's N, V of them different.

    Args:
        corpus: Texts to count in, at least one.

    Source:
        Spärck Jones 1972, *A statistical interpretation of term specificity*, with counts of tokens.
    """

    @checks_options
    def __init__(
        self, model: Any, processor: Any = None, *, corpus: Iterable[str] | None = None, **options: Unpack[Options]
    ) -> None:
        self.setup = Setup.create(TokenFrequency, model, processor, options)
        if self.setup.wrapper.modality != "text":
            raise UnsupportedError("TokenFrequency is for texts: pixels are not tokens of a corpus.")
        if not corpus:
            raise OptionError("TokenFrequency needs corpus=, the texts in which tokens are counted.")
        self.plan = TokenRarityPlan.from_texts(map(self.setup.wrapper.require_tokens.tokenize, corpus))
