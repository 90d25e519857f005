"""Measures the peak memory of a block of code."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """Peak memory in gigabytes (1e9 bytes) above what was in use before: of CUDA devices if CUDA is in use, else of the
    process.

    NaN until the block has ended, and on systems that do not report it.
    """

    gigabytes: float = math.nan


@contextmanager
def watched() -> Iterator[Peak]:
    """Measure the peak memory of the block; the result is set when the block ends."""
    peak, measure = Peak(), _of_accelerators if torch.cuda.is_initialized() else _of_process
    before = measure(begin=True)
    try:
        yield peak
    finally:
        peak.gigabytes = measure(begin=False) - before


def _of_accelerators(begin: bool) -> float:
    devices = range(torch.cuda.device_count())
    if not begin:
        return sum(torch.cuda.max_memory_allocated(device) for device in devices) / 1e9
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    return sum(torch.cuda.memory_allocated(device) for device in devices) / 1e9


def _of_process(begin: bool) -> float:
    try:
        if begin:
            # Resets the peak of the process (VmHWM) to its present memory (VmRSS); see proc(5).
            (_PROCESS / "clear_refs").write_text("5")
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        # Not Linux, or no permission, as in some containers.
        return math.nan
    # The file has kilobytes.
    name = "VmRSS:" if begin else "VmHWM:"
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith(name)), math.nan)
