"""The methods, controls and metrics of a comparison, created from names, classes and partials."""

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

_UNIT_OPTIONS = {"granularity", "patch_size", "segments"}
"""Options that set the units; a method takes one of them."""

Make = Callable[..., Any]
"""A class, or a `functools.partial` of one."""


@dataclass(frozen=True, eq=False)
class MethodEntry:
    """A method that is compared.

    Attributes:
        name: Its name in the comparison.
        explainer: The method on the model; None if the method does not support the model.
        control: Whether it is a control, whose scores do not use the model.
        made: Its class and options, as JSON.
        error: Why the method does not support the model; empty if it does.
    """

    name: str
    explainer: Explainer | None
    control: bool
    made: dict[str, Any]
    error: str = ""

    def warn(self, records: Iterable[Record], stacklevel: int = 1) -> None:
        """Issue the warnings about its results, once for the whole run.

        Args:
            records: The records of the method.
            stacklevel: As in `warnings.warn`: 1 names the line of the caller, 2 that of its caller, and so on.
        """
        if self.explainer is None:
            return
        checks = self.explainer.result_checks()
        for record in records:
            if record.output is not None:
                checks.add(record.sample, record.output)
        checks.warn(stacklevel + 1)

    def described(self) -> dict[str, Any]:
        """Its description, as JSON."""
        if self.explainer is None:
            return {"control": self.control, "error": self.error}
        return {"control": self.control, **self.made}


@dataclass(frozen=True, eq=False)
class MetricEntry:
    """A metric by which methods are compared.

    Attributes:
        name: Its name in the comparison.
        make: Creates the metric, without arguments or from a method if it needs one.
        needs: What the metric needs beyond outputs.
        higher_is_better: Whether large values are good; None for metrics that describe attributions without ranking
            them.
        base: The metric's name without the removal operator.
        made: Its class and options, as JSON.
        removal: Name of the removal operator, if `removals=` was passed.
    """

    name: str
    make: Make
    needs: Needs
    higher_is_better: bool | None
    base: str
    made: dict[str, Any]
    removal: str | None = None

    def described(self) -> dict[str, Any]:
        """Its description, as JSON."""
        return {
            "higher_is_better": self.higher_is_better, "base": self.base, "removal": self.removal, **self.made
        }  # fmt: skip


def _is_metric(given: Any) -> bool:
    cls = unwrap_partial(given)
    return isinstance(cls, type) and isinstance(getattr(cls, "needs", None), Needs)


def methods(
    given: Any, wrapper: InferenceWrapper, model: Any, processor: Any, options: Mapping[str, Any], corpus: Any
) -> list[MethodEntry]:
    """The requested methods, and the controls that are possible with this model.

    Raises:
        OptionError: if a name, an option or a value is invalid.
    """
    controls: dict[str, Make] = {"RandomScores": RandomScores, "PositionOnly": PositionOnly}
    if not wrapper.engine.gradient_obstacle:
        controls["InputNorm"] = InputNorm
    if wrapper.inputs.spatial:
        controls["CentreGaussian"] = CentreGaussian
    elif corpus is not None:
        controls["TokenFrequency"] = partial(TokenFrequency, corpus=corpus)
    if isinstance(given, str) and given == "all":
        given = [cls for cls in METHODS if wrapper.inputs.spatial or cls not in IMAGES_ONLY]
    requested = resolve_classes(given, METHODS, "method", is_method)
    duplicates = sorted(set(requested) & set(controls))
    if duplicates:
        raise OptionError(f"{duplicates[0]} is always compared: leave it out of methods=.")
    return [
        _method_entry(name, make, model, processor, options, control=name in controls)
        for name, make in (requested | controls).items()
    ]


def _method_entry(
    name: str, make: Make, model: Any, processor: Any, options: Mapping[str, Any], *, control: bool
) -> MethodEntry:
    shared = _shared_options(make, options)
    description = _describe(make, shared)
    try:
        return MethodEntry(name, make(model, processor, **shared), control, description)
    except UnsupportedError as error:
        # Reported as a failure on every sample: "all" includes methods that a model without gradients does not support.
        return MethodEntry(name, None, control, description, str(error))


def metrics(
    given: Any, masked: bool, model: Any, processor: Any, options: Mapping[str, Any], removals: Mapping[str, Any]
) -> list[MetricEntry]:
    """The requested metrics; those that mask units are repeated for each of the removal operators.

    Raises:
        OptionError: if a name, an option or a value is invalid, or a metric needs masks and there are none.
    """
    names = (*DEFAULT_METRICS, *(LOCALIZATION if masked else ())) if given is None else given
    requested = resolve_classes(names, METRICS, "metric", _is_metric)
    entries = []
    for name, make in requested.items():
        cls = unwrap_partial(make)
        if cls.needs is Needs.MASKS and not masked:
            if given == "all":
                continue
            raise OptionError(f"{name} needs masks=: for every sample a mask of what is known to decide it.")
        metric_entry = partial(MetricEntry, needs=cls.needs, higher_is_better=cls.higher_is_better, base=name)
        if cls.needs is not Needs.MODEL:
            # These are created after methods have run; a wrong option must be found before.
            _check_options(cls, make)
            entries.append(metric_entry(name, make, made=_describe(make, {})))
            continue
        # A metric that sets its own removal operator, or masks nothing, runs once.
        metric = _create_metric(make, model, processor, options)
        sets_removal = isinstance(make, partial) and "removal" in make.keywords
        if not removals or sets_removal or not metric.depends_on_removal:
            entries.append(metric_entry(name, partial(_identity, metric), made=_describe(make, options)))
            continue
        for removal_name, removal in removals.items():
            all_options = {**options, "removal": removal}
            metric = _create_metric(make, model, processor, all_options)
            entries.append(
                metric_entry(
                    f"{name} [{removal_name}]",
                    partial(_identity, metric),
                    made=_describe(make, all_options),
                    removal=removal_name,
                )
            )
    return entries


def operators(given: Any) -> dict[str, Any]:
    """Removal operators by name, from one operator, a list, or a comma-separated list of names.

    Raises:
        OptionError: if one occurs twice.
    """
    if isinstance(given, str):
        given = split_names(given)
    # A tensor is iterable, but one operator: a baseline image.
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else [given]
    names = ["default" if removal is None else str(fingerprint(removal)) for removal in several]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The removal operator {name} is there twice.")
    return dict(zip(names, several, strict=True))


def _create_metric(make: Make, model: Any, processor: Any, options: Mapping[str, Any]) -> Any:
    """A metric on the model."""
    metric = make(model, processor, **_shared_options(make, options))
    # Checks the removal operator now, instead of after methods have run.
    metric.perturbator()
    return metric


def _identity(metric: Any) -> Any:
    # Metrics on the model are created once: `MetricEntry.make` returns the same one for every sample.
    return metric


def _check_options(cls: type, make: Make) -> None:
    options = make.keywords if isinstance(make, partial) else {}
    names = [name for name in inspect.signature(cls).parameters if name not in ("method", "args", "kwargs")]
    for name in options:
        if name not in names:
            raise OptionError(f"{cls.__name__} has no option {name!r}: {choices(name, names)}")


def _shared_options(make: Make, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the comparison that a partial does not set itself."""
    excluded = set(make.keywords) if isinstance(make, partial) else set()
    # `segments`, for one, is an option of XRAI that does not set the units.
    unit_options = _UNIT_OPTIONS - {
        name for name, p in inspect.signature(unwrap_partial(make)).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    # A partial with patch_size= must not get the granularity= of the comparison, too.
    if excluded & unit_options:
        excluded |= _UNIT_OPTIONS
    return {name: value for name, value in options.items() if name not in excluded}


def _describe(make: Make, options: Mapping[str, Any]) -> dict[str, Any]:
    """A class and its options, without those that do not affect numbers: a run may resume with other values of them."""
    parts = described(make, options)
    return {**parts, "options": {k: v for k, v in parts["options"].items() if k not in ("show_progress", "batch_size")}}
