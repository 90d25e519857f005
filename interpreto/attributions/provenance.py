"""The provenance of a result: model, method, options, versions."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from interpreto.attributions.assembly import Setup
from interpreto.attributions.plans.base import Plan


def record(setup: Setup, plan: Plan, seconds: float) -> dict[str, Any]:
    """Model, method and its options, removal or baseline used, precision, seed, versions and time.

    All values can be written as JSON; options that cannot are recorded by their text.
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
    """The versions of this package and of those that it depends on."""
    return {name: _version(name) for name in ("interpreto", "torch", "transformers")}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else str(value)[:200]


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
