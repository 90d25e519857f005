"""Tables of benchmarks: printed as Markdown while they are measured, and written as JSON."""

import json
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where tables are written, each to NAME.json."""


@dataclass
class Table:
    """Rows with a name.

    Args:
        name: Name of the file, without its ending.
        columns: The columns and the format of their numbers, such as ".3f". Names of times end with ", s" or ", ms".
        rows: The cells of each row, in the order of the columns. They may be computed while the table is printed.
        n_keys: How many columns from the left say what a row is about; the others are what was measured.
    """

    name: str
    columns: Mapping[str, str]
    rows: Iterable[Sequence[Any]]
    n_keys: int = 1

    def run(self) -> None:
        """Print each row as soon as it is computed, and write all of them at the end."""
        print(f"\n{self.name}\n\n{header(self.columns)}", flush=True)
        self.rows, computed = [], self.rows
        for cells in computed:
            row = [plain(cell) for cell in cells]
            assert len(row) == len(self.columns), (self.name, row)
            self.rows.append(row)
            print(self.line(row), flush=True)
        self.write()

    def line(self, row: Sequence[Any]) -> str:
        """A row as Markdown."""
        return joined(shown(cell, spec) for cell, spec in zip(row, self.columns.values(), strict=True))

    def write(self) -> None:
        """Write the rows, which are a list by now, and what they were measured with."""
        RESULTS.mkdir(exist_ok=True)
        content = {
            "name": self.name,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            **environment(),
            "columns": dict(self.columns),
            "n_keys": self.n_keys,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
        }
        (RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def header(columns: Iterable[str]) -> str:
    """The first two lines of a table in Markdown."""
    names = list(columns)
    return f"{joined(names)}\n|{'---|' * len(names)}"


def joined(cells: Iterable[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def plain(cell: Any) -> Any:
    """A cell as JSON has it: numbers of NumPy and torch as Python's, numbers that are not finite as None."""
    value = cell.item() if hasattr(cell, "item") else cell
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(cell: Any, spec: str) -> str:
    """A cell as it is printed."""
    if cell is None:
        return "-"
    return format(cell, spec) if isinstance(cell, int | float) and not isinstance(cell, bool) else str(cell)


def environment() -> dict[str, Any]:
    """What the numbers depend on besides the benchmark: versions, processor, threads, commit."""
    # Imported here, because `benchmarks.difference` needs none of them.
    import torch
    import transformers

    import interpreto

    commit = git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "uncommitted_changes": bool(git("status", "--porcelain")) if commit else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "interpreto": interpreto.__version__,
        },
        "cpu": cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def git(*arguments: str) -> str | None:
    """The output of git in this repository, or None outside of one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
