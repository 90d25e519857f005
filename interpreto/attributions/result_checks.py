"""Checks of results for convergence and for maps of zeros, with one warning of each kind per run."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from interpreto.attributions.result import AttributionOutput


@runtime_checkable
class ResultCheck(Protocol):
    """Inspects results, and warns once if some of them have a problem."""

    category: ClassVar[type[Warning]]

    def add(self, number: int, output: AttributionOutput) -> None:
        """Look at the result of a sample."""
        ...

    def message(self) -> str:
        """The text of the warning; empty if there is none."""
        ...


@dataclass(frozen=True, eq=False)
class ResultChecks:
    """Several checks of the results of one run.

    Attributes:
        checks: Each looks at every result.
    """

    checks: Sequence[ResultCheck]

    def add(self, number: int, output: AttributionOutput) -> None:
        """Look at the result of a sample; a sample that could not be explained has none."""
        if output.error is None:
            for check in self.checks:
                check.add(number, output)

    def warn(self, stacklevel: int = 1) -> None:
        """Warn once for every check that found something.

        Args:
            stacklevel: Whose line the warnings name: 1 is the caller's, 2 the line that called it, and so on.
        """
        for check in self.checks:
            if message := check.message():
                warnings.warn(message, check.category, stacklevel=stacklevel + 1)
