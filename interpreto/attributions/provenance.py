"""The provenance of a result: what is needed to reproduce it."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from interpreto.attributions.assembly import Setup
from interpreto.attributions.plans.base import Plan
from interpreto.type_guards import is_list


def record(setup: Setup, plan: Plan, seconds: float) -> dict[str, Any]:
    """The `info` of a result: model, method, options, removal or baseline, dtype, seed, versions and time.

    All values are JSON serializable; for options that are not, their `str` is recorded.

    Args:
        setup: The wrapped model and options.
        plan: The plan of the method.
        seconds: Run time for the sample.
    """
    return {
        **setup.wrapper.engine.provenance(),
        "inference_mode": setup.wrapper.explained_score,
        "method": setup.method,
        "options": {name: _to_json(value) for name, value in setup.options.items()},
        **plan.describe(),
        "signed": plan.signed,
        "seed": setup.seed,
        "seconds": round(seconds, 4),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The installed versions of interpreto, torch and transformers."""
    return {name: _version(name) for name in ("interpreto", "torch", "transformers")}


def _to_json(value: object) -> Any:
    """Convert a value to one that JSON can represent."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    # The str of an option such as a tensor baseline can be long.
    return [_to_json(item) for item in value] if is_list(value) else str(value)[:200]


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        # Packages that are imported from a source tree without installation have no metadata.
        return "unknown"
