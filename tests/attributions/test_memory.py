"""Memory is bounded by a batch: ten times the rows take no more of it, measured in a process of its own."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from torch import nn
from interpreto import {name}

torch.set_num_threads(1)
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 2))
image = torch.rand(3, 96, 96)

def peak(rows):
    options = dict(task="image-classification", granularity="pixel", show_progress=False)
    {name}(model, {option}=rows, batch_size=16, **options)(image, targets=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

before = peak(200)
print(peak(2000) - before)
"""


@pytest.mark.parametrize(
    ("name", "option", "whole"),
    [("Rise", "n_samples", 2000 * 96 * 96 * 4), ("IntegratedGradients", "n_steps", 2000 * 3 * 96 * 96 * 4)],
)
def test_ten_times_the_rows_take_no_more_memory(name, option, whole):
    """All masks or points at once would be 74 and 221 MB."""
    script = SCRIPT.format(name=name, option=option)
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert grown < whole / 4
