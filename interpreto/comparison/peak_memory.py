"""How much memory some work takes at its peak."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """Gigabytes above what was in use before, of the accelerator if there is one in use, else of the process.

    NaN until the work has ended, and where a system does not tell.
    """

    gigabytes: float = math.nan


@contextmanager
def watched() -> Iterator[Peak]:
    """Watch the memory while work is done."""
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
            # Sets the peak, which may lie in the past, to what is in use.
            (_PROCESS / "clear_refs").write_text("5")
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        # Only Linux tells, and not to everybody.
        return math.nan
    name = "VmRSS:" if begin else "VmHWM:"
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith(name)), math.nan)
