"""The provenance of a result: model, method, options, versions."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from interpreto.attributions.assembly import Setup
from interpreto.attributions.plans.base import Plan


def record(setup: Setup, plan: Plan, seconds: float) -> dict[str, Any]:
    """The `info` of a result: model, method, options, removal or baseline, dtype, seed, versions and time.

    All values can be written as JSON; options that cannot are recorded by their `str`.

    Args:
        setup: The wrapped model and options.
        plan: The plan of the method.
        seconds: Run time of the sample.
    """
    return {
        **setup.wrapper.engine.provenance(),
        "inference_mode": setup.wrapper.explained_score,
        "method": setup.method,
        "options": {name: _plain(value) for name, value in setup.options.items()},
        **plan.describe(),
        "signed": plan.signed,
        "seed": setup.seed,
        "seconds": round(seconds, 4),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of this package, torch and transformers."""
    return {name: _version(name) for name in ("interpreto", "torch", "transformers")}


def _plain(value: Any) -> Any:
    """A value that JSON can represent."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    # Cut, because the text of an option such as a tensor baseline can be long.
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else str(value)[:200]


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        # A source tree that was not installed has no metadata.
        return "unknown"
