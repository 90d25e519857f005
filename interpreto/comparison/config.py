"""What a comparison was asked to do, as it is written down."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from interpreto.attributions.validation import is_count
from interpreto.errors import SavedFileError


@dataclass(frozen=True)
class ComparisonConfig:
    """What was compared, on what, by what.

    Attributes:
        model: Model id, dtype and device.
        methods: For every method what it is: its class, parts and options, and whether it is a control.
        metrics: For every metric whether high is good, its name without the removal operator, and the operator.
        masks: A digest of every mask; None where there are none.
        count: The number of samples.
        seed: Where randomness started.
        n_bootstrap: Resamples of the intervals.
        versions: Of the packages.
        earlier_versions: Of those with which an earlier part of the run was made.
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
        """What can be written as JSON."""
        return asdict(self)

    @staticmethod
    def from_json(words: dict[str, Any]) -> "ComparisonConfig":
        """What was written.

        Raises:
            ValueError: if something is missing, or is not what it should be.
        """
        known = [field.name for field in fields(ComparisonConfig)]
        if missing := [name for name in known if name not in words]:
            raise ValueError(f"it does not say its {', '.join(missing)}")
        if unknown := sorted(set(words) - {*known, "version"}):
            raise ValueError(f"it has unknown fields: {', '.join(unknown)}")
        asked = ComparisonConfig(**{name: words[name] for name in known})
        for name, holds in asked._valid():
            if not holds:
                raise ValueError(f"its {name} is damaged")
        return asked

    def _valid(self) -> Iterator[tuple[str, bool]]:
        """For every field whether it can be what it says."""
        yield "model", isinstance(self.model, dict)
        yield (
            "methods",
            _is_table(self.methods) and all(isinstance(one.get("control"), bool) for one in self.methods.values()),
        )
        yield (
            "metrics",
            _is_table(self.metrics)
            and all(
                isinstance(one.get("base"), str)
                and isinstance(one.get("removal"), str | None)
                and isinstance(one.get("higher_is_better"), bool | None)
                for one in self.metrics.values()
            ),
        )
        yield (
            "masks",
            self.masks is None or (isinstance(self.masks, list) and all(isinstance(m, int) for m in self.masks)),
        )
        yield "count", is_count(self.count) and self.count > 0
        yield "seed", isinstance(self.seed, int)
        yield "n_bootstrap", is_count(self.n_bootstrap) and self.n_bootstrap > 0
        yield "versions", isinstance(self.versions, dict)
        yield "earlier_versions", isinstance(self.earlier_versions, list)

    def resumed_from(self, other: "ComparisonConfig", where: str) -> "ComparisonConfig":
        """This run as the rest of another one; other versions of packages are warned of, and both are recorded."""
        earlier = [one for one in (*other.earlier_versions, other.versions) if one != self.versions]
        if other.versions != self.versions:
            changed = ", ".join(
                f"{name} {other.versions.get(name, 'none')} then and {version} now"
                for name, version in self.versions.items()
                if other.versions.get(name) != version
            )
            warnings.warn(
                f"The comparison in {where!r} was begun with other versions ({changed}): its numbers may differ in "
                "the last digits. Both are recorded.",
                stacklevel=5,
            )
        return replace(self, earlier_versions=[one for n, one in enumerate(earlier) if one not in earlier[:n]])

    def check_same(self, other: "ComparisonConfig", where: str) -> None:
        """Refuse a run that was asked for something else; it may have had fewer samples, or resamples.

        Raises:
            SavedFileError: if it was; the message says what differs.
        """
        for name in ("model", "methods", "metrics", "seed"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise SavedFileError(
                    f"{where!r} holds a comparison with other {name}: {_difference(mine, theirs)}. Give a new folder, "
                    "or the same arguments to go on with that run."
                )
        if other.count > self.count:
            raise SavedFileError(
                f"{where!r} holds a comparison of {other.count} samples, more than the {self.count} given: give as "
                "many, or a new folder."
            )
        pairs = zip(self.masks or [], other.masks or [], strict=False)
        if (self.masks is None) != (other.masks is None) or any(mine != theirs for mine, theirs in pairs):
            raise SavedFileError(f"{where!r} holds a comparison with other masks: give a new folder.")


def _difference(mine: Any, theirs: Any) -> str:
    """The first thing in which two records differ, in words."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name in {**mine, **theirs}:
            if mine.get(name) != theirs.get(name):
                if name not in theirs or name not in mine:
                    return f"{name} is {'new' if name in mine else 'not asked for'}"
                return f"{name}, {_difference(mine[name], theirs[name])}"
    return f"{mine!r} instead of {theirs!r}"


def _is_table(given: Any) -> bool:
    """Whether it maps names to records."""
    return isinstance(given, dict) and all(isinstance(one, dict) for one in given.values())
