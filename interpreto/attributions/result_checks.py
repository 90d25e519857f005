"""What is checked of results: convergence and maps of zeros, with one warning of each kind for a whole run."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from interpreto.attributions.result import AttributionOutput


@runtime_checkable
class ResultCheck(Protocol):
    """Looks at results, and says once what is wrong with some of them."""

    category: ClassVar[type[Warning]]

    def add(self, number: int, output: AttributionOutput) -> None:
        """Look at the result of a sample."""
        ...

    def message(self) -> str:
        """What to warn of; empty if nothing is wrong."""
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
