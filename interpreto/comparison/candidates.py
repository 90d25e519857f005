"""Who is compared and by what: methods, controls and metrics from names, classes and partials."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from interpreto.attributions.explainer import Explainer, is_method
from interpreto.attributions.methods import (
    IMAGES_ONLY,
    METHODS,
    CentreGaussian,
    InputNorm,
    PositionOnly,
    RandomScores,
    TokenFrequency,
)
from interpreto.attributions.metrics import METRICS
from interpreto.attributions.metrics.metric_result import Needs
from interpreto.attributions.naming import resolve_classes, split_names, unwrap_partial
from interpreto.comparison.fingerprint import described, fingerprint
from interpreto.comparison.records import Record
from interpreto.errors import OptionError, UnsupportedError, choices
from interpreto.model_wrapping.wrapper import InferenceWrapper

DEFAULT_METRICS = ("Deletion", "Insertion", "MuFidelity", "Completeness", "Entropy")
LOCALIZATION = ("PointingGame", "RelevanceMass", "RelevanceRank")

_UNITS = {"granularity", "patch_size", "segments"}

Make = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class MethodEntry:
    """A method that is compared.

    Attributes:
        name: What it is called.
        explainer: The method on the model; None where it cannot work on it.
        control: Whether it is one of the honest baselines.
        made: Its class and options.
        error: Why it cannot work.
    """

    name: str
    explainer: Explainer | None
    control: bool
    made: dict[str, Any]
    error: str = ""

    def warn(self, records: Iterable[Record], stacklevel: int = 1) -> None:
        """Warn of what is wrong with its results, once for the whole run.

        Args:
            records: What it found.
            stacklevel: Whose line the warnings name: 1 is the caller's, 2 the line that called it, and so on.
        """
        if self.explainer is None:
            return
        checks = self.explainer.result_checks()
        for record in records:
            if record.output is not None:
                checks.add(record.sample, record.output)
        checks.warn(stacklevel + 1)

    def described(self) -> dict[str, Any]:
        """What it is, as JSON."""
        if self.explainer is None:
            return {"control": self.control, "error": self.error}
        return {"control": self.control, **self.made}


@dataclass(frozen=True, eq=False)
class MetricEntry:
    """A metric that compares.

    Attributes:
        name: What it is called.
        make: What makes the metric: without arguments, or from a method where it needs one.
        needs: What the metric needs beyond outputs.
        higher_is_better: Whether large values are good; None where the metric does not judge.
        base: The metric's name without the removal operator.
        made: Its class and options.
        removal: The operator, where several are asked for.
    """

    name: str
    make: Make
    needs: Needs
    higher_is_better: bool | None
    base: str
    made: dict[str, Any]
    removal: str | None = None

    def described(self) -> dict[str, Any]:
        """What it is, as JSON."""
        return {
            "higher_is_better": self.higher_is_better, "base": self.base, "removal": self.removal, **self.made
        }  # fmt: skip


def _is_metric(given: Any) -> bool:
    cls = unwrap_partial(given)
    return isinstance(cls, type) and isinstance(getattr(cls, "needs", None), Needs)


def methods(
    given: Any, wrapper: InferenceWrapper, model: Any, processor: Any, options: Mapping[str, Any], corpus: Any
) -> list[MethodEntry]:
    """The methods that a user asks for, and the controls that this model allows.

    Raises:
        OptionError: if a name, an option or a value does not exist.
    """
    controls: dict[str, Make] = {"RandomScores": RandomScores, "PositionOnly": PositionOnly}
    if not wrapper.engine.gradient_obstacle:
        controls["InputNorm"] = InputNorm
    if wrapper.modality == "image":
        controls["CentreGaussian"] = CentreGaussian
    elif corpus is not None:
        controls["TokenFrequency"] = partial(TokenFrequency, corpus=corpus)
    if isinstance(given, str) and given == "all":
        given = [cls for cls in METHODS if wrapper.modality == "image" or cls not in IMAGES_ONLY]
    asked = resolve_classes(given, METHODS, "method", is_method)
    clash = sorted(set(asked) & set(controls))
    if clash:
        raise OptionError(f"{clash[0]} is always compared: leave it out of methods=.")
    return [
        _entrant(name, make, model, processor, options, control=name in controls)
        for name, make in (asked | controls).items()
    ]


def _entrant(
    name: str, make: Make, model: Any, processor: Any, options: Mapping[str, Any], *, control: bool
) -> MethodEntry:
    own = _besides(make, options)
    made = _described(make, own)
    try:
        return MethodEntry(name, make(model, processor, **own), control, made)
    except UnsupportedError as error:
        return MethodEntry(name, None, control, made, str(error))


def metrics(
    given: Any, masked: bool, model: Any, processor: Any, options: Mapping[str, Any], removals: Mapping[str, Any]
) -> list[MetricEntry]:
    """The metrics that a user asks for; those that hide units once for every removal operator asked for.

    Raises:
        OptionError: if a name, an option or a value does not exist, or a metric needs masks and there are none.
    """
    names = (*DEFAULT_METRICS, *(LOCALIZATION if masked else ())) if given is None else given
    asked = resolve_classes(names, METRICS, "metric", _is_metric)
    found = []
    for name, make in asked.items():
        cls = unwrap_partial(make)
        if cls.needs is Needs.MASKS and not masked:
            if given == "all":
                continue
            raise OptionError(f"{name} needs masks=: for every sample what is known to decide it.")
        metric_entry = partial(MetricEntry, needs=cls.needs, higher_is_better=cls.higher_is_better, base=name)
        if cls.needs is not Needs.MODEL:
            # Told of before anything runs, as for those that are made here.
            _check_options(cls, make)
            found.append(metric_entry(name, make, made=_described(make, {})))
            continue
        # A metric that sets its own operator, or hides nothing, runs once.
        metric = _measuring(make, model, processor, options)
        own = isinstance(make, partial) and "removal" in make.keywords
        if not removals or own or not metric.depends_on_removal:
            found.append(metric_entry(name, partial(_same, metric), made=_described(make, options)))
            continue
        for shown, removal in removals.items():
            with_it = {**options, "removal": removal}
            metric = _measuring(make, model, processor, with_it)
            found.append(
                metric_entry(f"{name} [{shown}]", partial(_same, metric), made=_described(make, with_it), removal=shown)
            )
    return found


def operators(given: Any) -> dict[str, Any]:
    """Removal operators by name: one or several, names with commas between them too.

    Raises:
        OptionError: if one is there twice.
    """
    if isinstance(given, str):
        given = split_names(given)
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else [given]
    names = ["default" if one is None else str(fingerprint(one)) for one in several]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The removal operator {name} is there twice.")
    return dict(zip(names, several, strict=True))


def _measuring(make: Make, model: Any, processor: Any, options: Mapping[str, Any]) -> Any:
    """A metric on the model, whose removal operator is known to be one."""
    metric = make(model, processor, **_besides(make, options))
    metric.perturbator()
    return metric


def _same(metric: Any) -> Any:
    return metric


def _check_options(cls: type, make: Make) -> None:
    options = make.keywords if isinstance(make, partial) else {}
    known = [name for name in inspect.signature(cls).parameters if name not in ("method", "args", "kwargs")]
    for name in options:
        if name not in known:
            raise OptionError(f"{cls.__name__} has no option {name!r}: {choices(name, known)}")


def _besides(make: Make, options: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options that a partial does not set itself; what cuts into units is one option of several names."""
    own = set(make.keywords) if isinstance(make, partial) else set()
    # An option of the method's own may have the name of a shared one.
    shared = _UNITS - {
        name for name, one in inspect.signature(unwrap_partial(make)).parameters.items() if one.kind is one.KEYWORD_ONLY
    }
    if own & shared:
        own |= _UNITS
    return {name: value for name, value in options.items() if name not in own}


def _described(make: Make, options: Mapping[str, Any]) -> dict[str, Any]:
    """A class and its options, but for those that change no number."""
    found = described(make, options)
    return {**found, "options": {k: v for k, v in found["options"].items() if k not in ("show_progress", "batch_size")}}
