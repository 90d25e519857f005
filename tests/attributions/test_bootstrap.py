"""Bootstrap intervals: coverage, pairing, seeds."""

import math

import numpy as np
import torch

from interpreto.comparison.bootstrap import difference, interval


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    draws = {
        "normal": lambda: rng.normal(0.3, 1.0, 64),
        "uniform": lambda: rng.uniform(0, 0.6, 64),
    }
    for draw in draws.values():
        runs = 2000
        hits = sum(not interval(torch.from_numpy(draw()), 500, seed).excludes(0.3) for seed in range(runs))
        assert 0.93 <= hits / runs <= 0.97


def test_the_same_seed_gives_the_same_interval():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0))
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)
    found = interval(values)
    assert found.low < found.mean < found.high
    assert found.count == 20


def test_paired_differences_are_narrower_than_what_they_are_made_of():
    values = torch.rand(30, generator=torch.Generator().manual_seed(0))
    others = values - 0.01 - 0.01 * torch.rand(30, generator=torch.Generator().manual_seed(1))
    found = difference(values, others)
    assert found.excludes(0)
    assert found.high - found.low < 0.1 * (interval(values).high - interval(values).low)


def test_few_or_equal_values_have_defined_intervals():
    one = interval(torch.tensor([2.0]))
    assert one.mean == 2
    assert math.isnan(one.low)
    assert not one.excludes(100)
    nothing = interval(torch.tensor([math.nan]))
    assert math.isnan(nothing.mean)
    assert nothing.count == 0
    same = interval(torch.tensor([1.0, 1.0, 1.0, math.nan]))
    assert (same.mean, same.low, same.high, same.count) == (1, 1, 1, 3)
