"""Who is compared and by what: methods, controls and metrics from names, classes and partials."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from interpreto.attributions.explainer import Explainer
from interpreto.attributions.methods import (
    METHODS,
    CentreGaussian,
    InputNorm,
    PositionOnly,
    RandomScores,
    TokenFrequency,
)
from interpreto.attributions.metrics import METRICS
from interpreto.attributions.metrics.measured import Needs
from interpreto.attributions.naming import core, look_up, title
from interpreto.errors import OptionError, UnsupportedError
from interpreto.model_wrapping.wrapper import Wrapper

DEFAULT_METRICS = ("Deletion", "Insertion", "MuFidelity", "Completeness", "Entropy")
LOCALIZATION = ("PointingGame", "RelevanceMass", "RelevanceRank")

Make = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Entrant:
    """A method that is compared.

    Attributes:
        name: What it is called.
        explainer: The method on the model; None where it cannot work on it.
        control: Whether it is one of the honest baselines.
        error: Why it cannot work.
    """

    name: str
    explainer: Explainer | None
    control: bool
    error: str = ""

    def described(self) -> dict[str, Any]:
        """What it is, as JSON."""
        if self.explainer is None:
            return {"control": self.control, "error": self.error}
        setup = self.explainer.setup
        given = {name: str(value) for name, value in setup.given.items() if name not in ("show_progress", "batch_size")}
        return {
            "control": self.control,
            "class": setup.method,
            "recipe": {name: str(value) for name, value in self.explainer.recipe.describe().items()},
            "options": given,
        }


@dataclass(frozen=True, eq=False)
class Judge:
    """A metric that compares.

    Attributes:
        name: What it is called.
        make: What makes the metric: without arguments, or from a method where it needs one.
        needs: What the metric needs beyond outputs.
        higher_is_better: Whether large values are good; None where the metric does not judge.
        base: The metric's name without the removal operator.
        removal: The operator, where several are asked for.
    """

    name: str
    make: Make
    needs: Needs
    higher_is_better: bool | None
    base: str
    removal: str | None = None

    def described(self) -> dict[str, Any]:
        """What it is, as JSON."""
        return {"higher_is_better": self.higher_is_better, "base": self.base, "removal": self.removal}


def named(given: Any, known: Sequence[type], what: str, default: Iterable[str] = ()) -> dict[str, Make]:
    """Classes or partials by name, from whatever a user gives.

    Raises:
        OptionError: if a name is not known or occurs twice, or nothing is given.
    """
    if given is None:
        given = list(default)
    if isinstance(given, Mapping):
        return {str(name): _made(one, known, what) for name, one in given.items()}
    if isinstance(given, str):
        given = [cls.__name__ for cls in known] if given == "all" else [word.strip() for word in given.split(",")]
    made = [_made(one, known, what) for one in (given if isinstance(given, Iterable) else [given])]
    if not made:
        raise OptionError(f"There is no {what} to compare: give names, classes, or a mapping from names to these.")
    names = [title(one) for one in made]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The {what} {name} is there twice: give a mapping, with a name of your own for each.")
    return dict(zip(names, made, strict=True))


def _made(given: Any, known: Sequence[type], what: str) -> Make:
    if isinstance(given, str):
        return look_up(given, known, what)
    inner = core(given)
    if not (isinstance(inner, type) and (issubclass(inner, Explainer) if what == "method" else _is_metric(inner))):
        raise OptionError(f"{given!r} is no {what}: give a name, a class, or a functools.partial of a class.")
    return given


def _is_metric(cls: Any) -> bool:
    return isinstance(getattr(cls, "needs", None), Needs)


def methods(
    given: Any, wrapper: Wrapper, model: Any, processor: Any, options: Mapping[str, Any], corpus: Any
) -> list[Entrant]:
    """The methods that a user asks for, and the controls that this model allows.

    Raises:
        OptionError: if a name, an option or a value does not exist.
    """
    controls: dict[str, Make] = {"RandomScores": RandomScores, "PositionOnly": PositionOnly}
    if not wrapper.no_gradients:
        controls["InputNorm"] = InputNorm
    if wrapper.modality == "image":
        controls["CentreGaussian"] = CentreGaussian
    elif corpus is not None:
        controls["TokenFrequency"] = partial(TokenFrequency, corpus=corpus)
    asked = named(given, METHODS, "method")
    clash = sorted(set(asked) & set(controls))
    if clash:
        raise OptionError(f"{clash[0]} is always compared: leave it out of methods=.")
    return [
        _entrant(name, make, model, processor, options, control=name in controls)
        for name, make in (asked | controls).items()
    ]


def _entrant(
    name: str, make: Make, model: Any, processor: Any, options: Mapping[str, Any], *, control: bool
) -> Entrant:
    try:
        return Entrant(name, make(model, processor, **_besides(make, options)), control)
    except UnsupportedError as error:
        return Entrant(name, None, control, str(error))


def metrics(
    given: Any, masked: bool, model: Any, processor: Any, options: Mapping[str, Any], removals: Sequence[Any]
) -> list[Judge]:
    """The metrics that a user asks for; those that hide units once for every removal operator asked for.

    Raises:
        OptionError: if a name, an option or a value does not exist, or a metric needs masks and there are none.
    """
    asked = named(given, METRICS, "metric", (*DEFAULT_METRICS, *(LOCALIZATION if masked else ())))
    found = []
    for name, make in asked.items():
        cls = core(make)
        if cls.needs is Needs.MASKS and not masked:
            if given == "all":
                continue
            raise OptionError(f"{name} needs masks=: for every sample what is known to decide it.")
        judge = partial(Judge, needs=cls.needs, higher_is_better=cls.higher_is_better, base=name)
        if cls.needs is not Needs.MODEL:
            found.append(judge(name, make))
            continue
        for removal in removals or [None]:
            own = dict(options) if removal is None else {**options, "removal": removal}
            # Made here, so that a wrong option is told of before anything runs.
            metric = make(model, processor, **_besides(make, own))
            metric.modality()
            shown = name if removal is None else f"{name} [{removal}]"
            found.append(judge(shown, lambda metric=metric: metric, removal=None if removal is None else str(removal)))
    return found


def _besides(make: Make, options: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options that a partial does not set itself."""
    own = make.keywords if isinstance(make, partial) else {}
    return {name: value for name, value in options.items() if name not in own}
