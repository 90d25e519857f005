"""The methods, controls and metrics that a comparison evaluates, created from names, classes and partials."""

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
from interpreto.attributions.naming import partial_keywords, resolve_classes, split_names, unwrap_partial
from interpreto.comparison.fingerprint import describe_call, fingerprint
from interpreto.comparison.records import Record
from interpreto.errors import OptionError, UnsupportedError, choices
from interpreto.model_wrapping.wrapper import InferenceWrapper
from interpreto.typing import OnError

DEFAULT_METRICS = ("Deletion", "Insertion", "MuFidelity", "Completeness", "Entropy")
LOCALIZATION = ("PointingGame", "RelevanceMass", "RelevanceRank")

_UNIT_OPTIONS = {"granularity", "patch_size", "segments"}
"""Options that define the units; a method accepts only one of them."""

Factory = Callable[..., Any]
"""The class of a method or metric, or a `functools.partial` of one."""


@dataclass(frozen=True, eq=False)
class MethodEntry:
    """A method or control that takes part in a comparison.

    Attributes:
        name: Its name in the comparison.
        explainer: The explainer; None if the method does not support the model.
        control: Whether it is a control: its scores do not depend on the model.
        configuration: Its class and options, as JSON.
        error: Why the method does not support the model; empty if it does.
    """

    name: str
    explainer: Explainer | None
    control: bool
    configuration: dict[str, Any]
    error: str = ""

    def warn(self, records: Iterable[Record], stacklevel: int = 1) -> None:
        """Issue the warnings about the results of this method, once for the whole run.

        Args:
            records: The records of the method.
            stacklevel: As in `warnings.warn`: with 1 the warning points to the caller of this function, with 2 to the
                caller of that caller.
        """
        if self.explainer is None:
            return
        checks = self.explainer.result_checks()
        for record in records:
            if record.output is not None:
                checks.add(record.sample, record.output)
        checks.warn(stacklevel + 1)

    def to_json(self) -> dict[str, Any]:
        """What the configuration of the run records about this entry."""
        if self.explainer is None:
            return {"control": self.control, "error": self.error}
        return {"control": self.control, **self.configuration}


@dataclass(frozen=True, eq=False)
class MetricEntry:
    """A metric that takes part in a comparison.

    Attributes:
        name: Its name in the comparison.
        create: Creates the metric; called with the explainer if `needs` is `Needs.METHOD`, else without arguments.
        needs: What the metric needs besides the attributions.
        higher_is_better: Whether high values are good; None for metrics that describe attributions without ranking
            them.
        base: The metric's name without the removal operator.
        configuration: Its class and options, as JSON.
        removal: Name of the removal operator, if `removals=` was passed.
    """

    name: str
    create: Factory
    needs: Needs
    higher_is_better: bool | None
    base: str
    configuration: dict[str, Any]
    removal: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What the configuration of the run records about this entry."""
        return {
            "higher_is_better": self.higher_is_better, "base": self.base, "removal": self.removal, **self.configuration
        }  # fmt: skip


def _is_metric(value: object) -> bool:
    cls = unwrap_partial(value)
    return inspect.isclass(cls) and isinstance(getattr(cls, "needs", None), Needs)


def methods(
    requested: object,
    wrapper: InferenceWrapper,
    model: object,
    processor: object,
    options: Mapping[str, object],
    corpus: Any,
    on_error: OnError,
) -> list[MethodEntry]:
    """Create the requested methods, and the controls that the model supports.

    Args:
        requested: The option `methods` of the comparison.
        wrapper: The wrapped model.
        model: The model as the user passed it.
        processor: The processor as the user passed it.
        options: The options of the comparison that are passed on to methods.
        corpus: The option `corpus`: texts from which `TokenFrequency` counts tokens.
        on_error: Whether a method that does not support the model is an error ("raise"), unless all are requested.

    Raises:
        OptionError: if a name, an option or a value is invalid.
        UnsupportedError: with "raise", if a method that is requested by name does not support the model.
    """
    controls: dict[str, Factory] = {"RandomScores": RandomScores, "PositionOnly": PositionOnly}
    if not wrapper.engine.gradient_obstacle:
        controls["InputNorm"] = InputNorm
    if wrapper.inputs.spatial:
        controls["CentreGaussian"] = CentreGaussian
    elif corpus is not None:
        controls["TokenFrequency"] = partial(TokenFrequency, corpus=corpus)
    takes_all = isinstance(requested, str) and requested == "all"
    if takes_all:
        requested = [cls for cls in METHODS if wrapper.inputs.spatial or cls not in IMAGES_ONLY]
    factories = resolve_classes(requested, METHODS, "method", is_method)
    duplicates = sorted(set(factories) & set(controls))
    if duplicates:
        raise OptionError(f"{duplicates[0]} is a control, and controls are always included: remove it from methods=.")
    entries = [
        _method_entry(name, factory, model, processor, options, control=name in controls)
        for name, factory in (factories | controls).items()
    ]
    unsupported = next((entry for entry in entries if entry.explainer is None), None)
    if unsupported is not None and on_error == "raise" and not takes_all:
        raise UnsupportedError(unsupported.error)
    return entries


def _method_entry(
    name: str, factory: Factory, model: object, processor: object, options: Mapping[str, object], *, control: bool
) -> MethodEntry:
    shared = _shared_options(factory, options)
    configuration = _configuration(factory, shared, model)
    try:
        return MethodEntry(name, factory(model, processor, **shared), control, configuration)
    except UnsupportedError as error:
        # Recorded as a failure on each sample instead of raised, because methods="all" includes gradient methods even
        # for models without gradients.
        return MethodEntry(name, None, control, configuration, str(error))


def metrics(
    requested: object,
    has_ground_truth_masks: bool,
    model: object,
    processor: object,
    options: Mapping[str, object],
    removals: Mapping[str, object],
) -> list[MetricEntry]:
    """Create the requested metrics; there is one entry per removal operator for metrics that mask units.

    Args:
        requested: The option `metrics` of the comparison; None for the default metrics.
        has_ground_truth_masks: Whether the user passed `masks`.
        model: The model as the user passed it.
        processor: The processor as the user passed it.
        options: The options of the comparison that are passed on to metrics.
        removals: Removal operators by name; empty for the default one.

    Raises:
        OptionError: if a name, an option or a value is invalid, or a metric needs masks and there are none.
    """
    default = (*DEFAULT_METRICS, *(LOCALIZATION if has_ground_truth_masks else ()))
    factories = resolve_classes(default if requested is None else requested, METRICS, "metric", _is_metric)
    entries = []
    for name, factory in factories.items():
        cls = unwrap_partial(factory)
        if cls.needs is Needs.MASKS and not has_ground_truth_masks:
            if requested == "all":
                continue
            raise OptionError(f"{name} needs masks=: one ground-truth mask of the evidence per sample.")
        metric_entry = partial(MetricEntry, needs=cls.needs, higher_is_better=cls.higher_is_better, base=name)
        if cls.needs is not Needs.MODEL:
            # These metrics are created after all methods have run; invalid options are reported before.
            _check_options(cls, factory)
            entries.append(metric_entry(name, factory, configuration=_configuration(factory, {}, model)))
            continue
        # A metric that sets its own removal operator, or does not mask units, is evaluated once.
        metric = _create_metric(factory, model, processor, options)
        sets_removal = "removal" in partial_keywords(factory)
        if not removals or sets_removal or not metric.depends_on_removal:
            configuration = _configuration(factory, options, model)
            entries.append(metric_entry(name, partial(_identity, metric), configuration=configuration))
            continue
        for removal_name, removal in removals.items():
            all_options = {**options, "removal": removal}
            metric = _create_metric(factory, model, processor, all_options)
            entries.append(
                metric_entry(
                    f"{name} [{removal_name}]",
                    partial(_identity, metric),
                    configuration=_configuration(factory, all_options, model),
                    removal=removal_name,
                )
            )
    return entries


def operators(removals: object) -> dict[str, Any]:
    """Removal operators by name, from one operator, a list, or a comma-separated list of names.

    Raises:
        OptionError: if there are duplicates.
    """
    if isinstance(removals, str):
        removals = split_names(removals)
    # A tensor is iterable, but it is a single operator: a baseline image.
    several = list(removals) if isinstance(removals, Iterable) and not isinstance(removals, Tensor) else [removals]
    names = ["default" if removal is None else str(fingerprint(removal)) for removal in several]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"The removal operator {name} is a duplicate: pass each operator once.")
    return dict(zip(names, several, strict=True))


def _create_metric(factory: Factory, model: object, processor: object, options: Mapping[str, object]) -> Any:
    """Create a metric that runs the model."""
    metric = factory(model, processor, **_shared_options(factory, options))
    # Creating the perturbator validates the removal operator before the methods run.
    metric.perturbator()
    return metric


def _identity(metric: object) -> Any:
    # Metrics that run the model are created once, so `MetricEntry.create` returns the same object for all samples.
    return metric


def _check_options(cls: type, factory: Factory) -> None:
    names = [name for name in inspect.signature(cls).parameters if name not in ("method", "args", "kwargs")]
    for name in partial_keywords(factory):
        if name not in names:
            raise OptionError(f"{cls.__name__} has no option {name!r}: {choices(name, names)}")


def _shared_options(factory: Factory, options: Mapping[str, object]) -> dict[str, Any]:
    """The options of the comparison that a partial does not set itself."""
    excluded = set(partial_keywords(factory))
    # A method's own option may have the same name but another meaning, such as `segments` of XRAI.
    unit_options = _UNIT_OPTIONS - {
        name for name, p in inspect.signature(unwrap_partial(factory)).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    # A partial with patch_size= must not also get granularity= from the comparison.
    if excluded & unit_options:
        excluded |= _UNIT_OPTIONS
    return {name: value for name, value in options.items() if name not in excluded}


def _configuration(factory: Factory, options: Mapping[str, object], model: object) -> dict[str, Any]:
    """A class and its options as JSON, without options that do not affect results and may change when a run resumes."""
    parts = describe_call(factory, options, model)
    return {**parts, "options": {k: v for k, v in parts["options"].items() if k not in ("show_progress", "batch_size")}}
