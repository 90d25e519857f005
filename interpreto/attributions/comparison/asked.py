"""What a comparison was asked to do, as it is written down."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from interpreto.errors import SavedFileError


@dataclass(frozen=True)
class Asked:
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
    """

    model: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    masks: list[int] | None
    count: int
    seed: int
    n_bootstrap: int
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """What can be written as JSON."""
        return asdict(self)

    @staticmethod
    def of_json(words: dict[str, Any], where: str) -> "Asked":
        """What was written.

        Raises:
            SavedFileError: if something is missing.
        """
        missing = [field.name for field in fields(Asked) if field.name not in words]
        if missing:
            raise SavedFileError(f"The run in {where!r} does not say its {', '.join(missing)}: it is damaged.")
        return Asked(**{field.name: words[field.name] for field in fields(Asked)})

    def check_same(self, other: "Asked", where: str) -> None:
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
