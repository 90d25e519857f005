"""Memory is bounded by the batch, not by the number of evaluations; measured in a separate process."""

import subprocess
import sys

SCRIPT = """
import resource, sys
import torch
from torch import nn
from interpreto import IntegratedGradients, Rise

torch.set_num_threads(1)
model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 2))
image = torch.rand(3, 96, 96)

def peak(method, option, rows):
    options = dict(task="image-classification", granularity="pixel", show_progress=False)
    method(model, batch_size=16, **{option: rows}, **options)(image, targets=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

for run in ((Rise, "n_samples"), (IntegratedGradients, "n_steps")):
    before = peak(*run, 200)
    print(peak(*run, 2000) - before)
"""


def test_ten_times_the_rows_take_no_more_memory():
    """All masks or points at once would take 74 and 221 MB."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    masks, points = map(int, found.split())
    assert masks < 2000 * 96 * 96 * 4 / 4
    assert points < 2000 * 3 * 96 * 96 * 4 / 4
