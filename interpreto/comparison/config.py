"""The configuration of a comparison, as it is saved."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from interpreto.attributions.validation import is_count
from interpreto.errors import SavedFileError
from interpreto.type_guards import Types, are_all

_TYPES: dict[str, Types] = {
    "model": dict,
    "masks": list | None,
    "seed": int,
    "versions": dict,
    "earlier_versions": list,
}
_METHOD_TYPES: dict[str, Types] = {"control": bool}
_METRIC_TYPES: dict[str, Types] = {"base": str, "removal": str | None, "higher_is_better": bool | None}


@dataclass(frozen=True)
class ComparisonConfig:
    """The model, methods, metrics and samples of a comparison.

    Attributes:
        model: Model id, dtype and device.
        methods: For each method its class, options, and whether it is a control.
        metrics: For each metric whether high values are good, its name without the removal operator, and the operator.
        masks: A checksum of each mask; None without masks.
        count: The number of samples.
        seed: The random seed.
        n_bootstrap: Number of resamples for intervals.
        versions: Versions of packages.
        earlier_versions: Versions with which earlier parts of a resumed run were computed.
    """

    model: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    masks: list[int] | None
    count: int
    seed: int
    n_bootstrap: int
    versions: dict[str, str]
    earlier_versions: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return asdict(self)

    @property
    def method_names(self) -> list[str]:
        """The names of the methods, controls last."""
        return list(self.methods)

    @property
    def control_names(self) -> list[str]:
        """The names of the controls."""
        return [name for name, method in self.methods.items() if method["control"]]

    @property
    def metric_names(self) -> list[str]:
        """The names of the metrics."""
        return list(self.metrics)

    @staticmethod
    def from_json(content: dict[str, Any]) -> "ComparisonConfig":
        """The configuration from JSON.

        Raises:
            ValueError: if a field is missing, unknown, or has an invalid value.
        """
        names = [field.name for field in fields(ComparisonConfig)]
        if missing := [name for name in names if name not in content]:
            raise ValueError(f"it has no {', '.join(missing)}")
        if unknown := sorted(set(content) - {*names, "version"}):
            raise ValueError(f"it has unknown fields: {', '.join(unknown)}")
        config = ComparisonConfig(**{name: content[name] for name in names})
        for name, is_valid in config._valid_fields():
            if not is_valid:
                raise ValueError(f"its {name} is damaged")
        return config

    def _valid_fields(self) -> Iterator[tuple[str, bool]]:
        """The name of each field and whether its value is valid."""
        for name, kind in _TYPES.items():
            yield name, isinstance(getattr(self, name), kind)
        yield "methods", _are_entries(self.methods, _METHOD_TYPES)
        yield "metrics", _are_entries(self.metrics, _METRIC_TYPES)
        yield "masks", are_all(int, self.masks or [])
        yield "count", is_count(self.count) and self.count > 0
        yield "n_bootstrap", is_count(self.n_bootstrap) and self.n_bootstrap > 0

    def resumed_from(self, other: "ComparisonConfig", where: str) -> "ComparisonConfig":
        """The configuration of this run as a continuation of an earlier one.

        Warns if versions of packages differ, and records all of them.
        """
        earlier = [versions for versions in (*other.earlier_versions, other.versions) if versions != self.versions]
        if other.versions != self.versions:
            changed = ", ".join(
                f"{name} {other.versions.get(name, 'none')} then and {version} now"
                for name, version in self.versions.items()
                if other.versions.get(name) != version
            )
            warnings.warn(
                f"The comparison in {where!r} was started with other versions ({changed}): its numbers may differ in "
                "the last digits. Both are recorded.",
                stacklevel=7,
            )
        # Dictionaries cannot be in a set; the order is that of the runs.
        return replace(self, earlier_versions=[v for n, v in enumerate(earlier) if v not in earlier[:n]])

    def check_same(self, other: "ComparisonConfig", where: str) -> None:
        """Check that an earlier run can be resumed as this one: it may differ only in fewer samples, or in resamples.

        Raises:
            SavedFileError: if the runs differ otherwise; the message names the first difference.
        """
        for name in ("model", "methods", "metrics", "seed"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise SavedFileError(
                    f"{where!r} contains a comparison with other {name}: {_difference(mine, theirs)}. Pass a new "
                    "folder, or the same arguments to resume that run."
                )
        if other.count > self.count:
            raise SavedFileError(
                f"{where!r} contains a comparison of {other.count} samples, more than the {self.count} passed: pass as "
                "many, or a new folder."
            )
        # Not strict: this run may have more samples. Samples themselves are compared as they are resolved.
        pairs = zip(self.masks or [], other.masks or [], strict=False)
        if (self.masks is None) != (other.masks is None) or any(mine != theirs for mine, theirs in pairs):
            raise SavedFileError(f"{where!r} contains a comparison with other masks: pass a new folder.")


def _difference(mine: object, theirs: object) -> str:
    """The first difference between two values, in words."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                if name not in theirs or name not in mine:
                    return f"{name} is {'new' if name in mine else 'missing'}"
                return f"{name}, {_difference(mine[name], theirs[name])}"
    return f"{mine!r} instead of {theirs!r}"


def _are_entries(given: object, types: dict[str, Types]) -> bool:
    """Whether a value is a dictionary of dictionaries with values of these types."""
    if not isinstance(given, dict) or not are_all(dict, given.values()):
        return False
    return all(isinstance(entry.get(name), kind) for entry in given.values() for name, kind in types.items())
