"""Laws of attribution methods as named assertions, which the tests of all methods call.

Each law takes a method (a class or a `functools.partial` of one) and a model with its processor, None for wrapped
functions. Sampled scores may differ by four of their standard errors besides `tolerance`; exact scores have none.
"""

import torch

from interpreto import from_callables


def assert_efficiency(method, model, processor, sample, difference, tolerance=1e-5, **options):
    """sum_i phi_i = f(x) - f(empty), and the reported gap is 0."""
    (output,) = method(model, processor)(sample, **options)
    assert output.completeness_gap is not None
    assert ((_totals(output) - difference).abs() < tolerance).all()
    assert (output.completeness_gap.abs() < tolerance).all()
    return output


def assert_completeness(method, model, processor, sample, difference, tolerance=1e-6, gap=1e-6, **options):
    """sum_i phi_i + gap = f(x) - f(baseline), where the absolute reported gap is less than `gap`."""
    (output,) = method(model, processor)(sample, **options)
    assert output.completeness_gap is not None
    assert ((_totals(output) + output.completeness_gap - difference).abs() < tolerance).all()
    assert (output.completeness_gap.abs() < gap).all()
    return output


def assert_symmetry(method, model, processor, sample, units, tolerance=1e-6, **options):
    """phi_i = phi_j if units i and j are exchangeable: f(S + i) = f(S + j) for every set S without them."""
    (output,) = method(model, processor)(sample, **options)
    one, other = _of_units(output, units)
    assert one.any()
    _assert_zero(one - other, _errors_of_units(output, units).sum(0), tolerance, output)
    return output


def assert_dummy(method, model, processor, sample, unit, tolerance=1e-6, **options):
    """phi_i = 0 if f(S + i) = f(S) for every set S of units without i."""
    (output,) = method(model, processor)(sample, **options)
    _assert_zero(_of_units(output, [unit])[0], _errors_of_units(output, [unit])[0], tolerance, output)
    return output


def assert_linearity(method, model, processor, sample, targets, a, b, tolerance=1e-6, **options):
    """phi(a f + b g) = a phi(f) + b phi(g), for targets f, g and a f + b g."""
    (output,) = method(model, processor)(sample, targets=targets, **options)
    first, second, combined = output.attributions
    assert first.any()
    assert second.any()
    assert torch.allclose(combined, a * first + b * second, atol=tolerance)
    return output


def assert_batch_invariance(method, model, processor, inputs, batch_sizes=(1, 7, 16), tolerance=2e-5):
    """phi(x; batch size m) = phi(x; batch size n) for all m and n."""
    *others, largest = sorted(batch_sizes)
    expected = method(model, processor, batch_size=largest)(inputs)
    for batch_size in others:
        assert_equal_outputs(method(model, processor, batch_size=batch_size)(inputs), expected, tolerance)
    return expected


def assert_batch_composition_invariance(method, model, processor, inputs, tolerance=2e-5):
    """phi(x_1, ..., x_n)_k = phi(x_k), whatever the other samples in the call and their order."""
    together = method(model, processor)(inputs)
    assert_equal_outputs([method(model, processor)(one)[0] for one in inputs], together, tolerance)
    assert_equal_outputs(method(model, processor)(inputs[::-1])[::-1], together, tolerance)
    return together


def assert_equal_outputs(found, expected, tolerance=2e-5):
    """The same scores for every sample, up to a share of the largest."""
    for one, other in zip(found, expected, strict=True):
        scale = float(other.attributions.abs().max()) + 1e-8
        assert float((one.attributions - other.attributions).abs().max()) < tolerance * max(scale, 1e-3)


def differentiable(function):
    """A function from images `p c h w` to scores `p k`, in PyTorch, as a wrapped model with gradients and features."""

    def gradients(pixels, target):
        values = torch.from_numpy(pixels).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(function(values)[:, target].sum(), values)
        return gradient.numpy()

    return from_callables(
        lambda pixels: function(torch.from_numpy(pixels)).numpy(),
        gradients,
        lambda pixels, target: (pixels, gradients(pixels, target)),
    )


def _totals(output):
    return output.attributions.flatten(1).double().sum(1)


def _of_units(output, units):
    return output.attributions.flatten(1)[:, units].T


def _errors_of_units(output, units):
    if output.standard_errors is None:
        return torch.zeros_like(_of_units(output, units))
    return output.standard_errors.flatten(1)[:, units].T


def _assert_zero(difference, errors, tolerance, output):
    allowed = tolerance + 4 * errors
    # A bound as large as the scores themselves would prove nothing.
    assert allowed.max() < output.attributions.abs().max() / 2
    assert (difference.abs() <= allowed).all()
