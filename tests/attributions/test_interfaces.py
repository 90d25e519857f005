"""The interfaces of methods, modalities and the scheduler: an adaptive path, nested smoothing, smooth masks."""

from dataclasses import dataclass
from functools import partial
from typing import Any, final

import pytest
import torch
from torch import Tensor

from interpreto import IntegratedGradients, KernelShap, Occlusion, Rise, Saliency, SmoothGrad
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.perturbations.base import Layout, Perturbator
from interpreto.attributions.perturbations.mask_generators.masks import OneAtATime, SmoothMasks, enlarged
from interpreto.attributions.perturbations.modalities.pixels import PixelValues
from interpreto.attributions.perturbations.paths.points import AtInput
from interpreto.attributions.plans.base import Plan, PlanNeeds, UnitAttribution
from interpreto.attributions.plans.gradient_base import ScoreReducer, SmoothablePlan
from interpreto.attributions.scheduler import join_plans, run_plans
from interpreto.errors import UnsupportedError
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.targets import AllOutputs
from tests.models import LinearImage, linear_text, setting


@final
@dataclass(frozen=True)
class GuidedPlan(SmoothablePlan):
    """Guided IG: at every step only features with small gradients move, so each request needs the last response."""

    modality: Any
    score_reducer: ScoreReducer
    n_steps: int
    fraction: float

    @property
    def gradient_input(self):
        return self.modality

    def n_evaluations(self, layout):
        return self.n_steps

    def describe(self):
        return {}

    def run(self, sample):
        raw = yield from self.raw_attribution(sample)
        return UnitAttribution(self.to_unit_scores(sample, raw))

    def to_unit_scores(self, prepared, raw):
        return self.score_reducer(prepared, self.modality, raw)

    def raw_attribution(self, prepared):
        parts = [prepared.targets.part(number, number + 1) for number in range(len(prepared.targets))]
        return torch.stack((yield from join_plans([self._one(prepared, part) for part in parts])))

    def _one(self, prepared, target):
        end = self.modality.read(prepared.sample)
        here = self.modality.baselines(prepared.sample, prepared.units, None, prepared.rng())[0].clone()
        total, total_distance = torch.zeros_like(end), (end - here).abs().sum()
        for step in range(self.n_steps):
            response = yield ModelRequest(
                self.modality.write(prepared.sample, prepared.units, here[None]), target, self.modality.field
            )
            gradient = response.gradients[0, 0]
            scheduled = total_distance * (1 - (step + 1) / self.n_steps)
            # Each round moves the fraction with the smallest gradients, until the remaining distance is on schedule.
            while (remaining := (end - here).abs().sum()) > scheduled + 1e-5 * total_distance:
                unfinished = (end - here).abs() > 1e-9
                threshold = gradient[unfinished].abs().quantile(self.fraction)
                chosen = unfinished & (gradient.abs() <= threshold)
                movable = (end - here)[chosen].abs().sum()
                share = min(1.0, float((remaining - scheduled) / movable))
                move = torch.where(chosen, (end - here) * share, 0.0)
                total, here = total + gradient * move, here + move
        return total


@final
class GuidedIG(Explainer):
    """A method defined outside the package."""

    def __init__(self, model, processor=None, *, n_steps: int = 20, fraction: float = 0.25, **options: Any) -> None:
        self.setup = Setup.create(IntegratedGradients, model, processor, options)
        modality = self.setup.path_perturbator(AtInput()).modality
        self.plan = GuidedPlan(modality, self.setup.score_reducer("sum", preserve_sum=True), n_steps, fraction)


def test_an_adaptive_path_through_a_linear_model_equals_a_straight_one():
    """For any order in which features move, a linear model has attributions w (x - x')."""
    weights, pixels = torch.randn(2, 3, 8, 8), torch.randn(3, 8, 8)
    models = (
        (LinearImage(weights), None, pixels, {"task": "image-classification", "patch_size": 4}),
        (*linear_text(), "the plot was not good", {"task": "text-classification"}),
    )
    for model, processor, given, options in models:
        (guided,) = GuidedIG(model, processor, n_steps=7, **options)(given, targets=(0, 1))
        (straight,) = IntegratedGradients(model, processor, n_steps=1, **options)(given, targets=(0, 1))
        assert torch.allclose(guided.attributions, straight.attributions, atol=1e-3)


def test_an_adaptive_path_of_many_samples_is_that_of_each():
    model, processor, inputs = setting("image")
    found = GuidedIG(model, processor, n_steps=6)(inputs, targets=(0, 1))
    for one, given in zip(found, inputs, strict=True):
        alone = GuidedIG(model, processor, n_steps=6)(given, targets=(0, 1))[0]
        assert torch.allclose(one.attributions, alone.attributions, atol=1e-5)


def test_guided_ig_with_fraction_one_is_left_riemann_integration():
    model, processor, inputs = setting("image")
    (guided,) = GuidedIG(model, processor, n_steps=16, fraction=1.0)(inputs[0])
    (straight,) = IntegratedGradients(model, processor, n_steps=16, rule="riemann-left")(inputs[0])
    assert torch.allclose(guided.attributions, straight.attributions, atol=1e-4)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_smoothing_wraps_integrated_gradients(modality):
    model, processor, inputs = setting(modality)
    of = partial(IntegratedGradients, n_steps=8)
    (output,) = SmoothGrad(model, processor, base_method=of, n_samples=6, noise_level=0.05)(inputs[0])
    # One evaluation of the sample, then eight nodes for every noisy copy.
    assert output.n_evaluations == 1 + 6 * 8
    (plain,) = of(model, processor)(inputs[0])
    (unfinished,) = SmoothGrad(model, processor, base_method=of, n_samples=2, noise_level=0.0)(inputs[0])
    assert torch.allclose(unfinished.attributions, plain.attributions, atol=1e-5)
    assert not torch.allclose(output.attributions, plain.attributions, atol=1e-5)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_smoothing_wraps_an_adaptive_path_and_smoothing_itself(modality):
    model, processor, inputs = setting(modality)
    for of in (partial(GuidedIG, n_steps=4), partial(SmoothGrad, n_samples=2)):
        found = SmoothGrad(model, processor, base_method=of, n_samples=3)(inputs[:2])
        alone = SmoothGrad(model, processor, base_method=of, n_samples=3, batch_size=1)(inputs[1])[0]
        assert torch.allclose(found[1].attributions, alone.attributions, atol=1e-5)


def test_smoothing_refuses_methods_without_gradients():
    model, processor, _ = setting("image")
    with pytest.raises(UnsupportedError, match="SmoothGrad smooths methods that use gradients"):
        SmoothGrad(model, processor, base_method=KernelShap)


def test_rise_on_pixels_never_holds_all_masks():
    """4,000 masks of 64 x 64 pixels would take 65 MB; a batch of them takes 0.5 MB."""
    model, processor, inputs = setting("image")
    (output,) = Rise(model, processor, granularity="pixel", n_samples=60)(inputs[0])
    assert output.attributions.shape == (1, 32, 32)
    assert output.attributions.std() > 0


def test_a_perturbator_refuses_a_pair_that_does_not_fit():
    with pytest.raises(UnsupportedError, match="OneAtATime and PixelValues cannot be combined"):
        Perturbator(OneAtATime(), PixelValues())


def counting_plan(value, count):
    """A plan that sends `count` requests of two rows and sums the scores."""
    total = 0.0
    for _ in range(count):
        response = yield ModelRequest(Rows({"x": torch.full((2, 1), float(value))}), AllOutputs())
        total += float(response.scores.sum())
    return total


def test_the_scheduler_packs_rows_of_many_plans_and_keeps_few_in_progress():
    sizes, started = [], []

    def plans():
        for number in range(20):
            started.append(number)
            yield counting_plan(number, 3)

    def run(requests):
        sizes.append(sum(len(request.rows) for request in requests))
        # Less than a batch of rows waits before a plan is started, so that few plans are in progress.
        return [ModelResponse(request.rows.fields["x"]) for request in requests]

    found = run_plans(plans(), run, batch_size=5)
    assert found == [(6.0 * number, 6) for number in range(20)]
    # Only the last plans cannot fill a batch.
    assert sizes.count(5) >= 22
    assert max(sizes) == 5
    assert sum(sizes) == 120


def test_small_rows_are_prefetched_and_large_ones_are_not():
    """A cache that a request returns may be large even if its rows are small, and so may gradients of many targets."""
    n_started = {}
    for name, width, count, kind in (
        ("light", 1, 1, {}),
        ("heavy", 2**24, 1, {}),
        ("kept", 1, 1, {"return_cache": True}),
        ("gradients", 2**14, 2, {"gradient_field": "x"}),
        ("many gradients", 2**14, 2**10, {"gradient_field": "x"}),
    ):
        waiting, n_waiting = set(), []

        def plan(number, width=width, count=count, kind=kind, waiting=waiting, n_waiting=n_waiting):
            waiting.add(number)
            n_waiting.append(len(waiting))
            yield ModelRequest(Rows({"x": torch.zeros(1, 1).expand(1, width)}), AllOutputs(count), **kind)
            waiting.remove(number)

        run_plans(
            (plan(number) for number in range(40)),
            lambda requests: [ModelResponse(torch.zeros(1, 1)) for _ in requests],
            2,
        )
        n_started[name] = max(n_waiting)
    assert n_started == {"light": 32, "heavy": 2, "kept": 2, "gradients": 32, "many gradients": 2}


def test_a_request_may_have_no_rows():
    def plan(count):
        response = yield ModelRequest(Rows({"x": torch.ones(count, 1)}), AllOutputs())
        more = yield ModelRequest(Rows({"x": torch.ones(2, 1)}), AllOutputs())
        return float(response.scores.sum() + more.scores.sum())

    found = run_plans(
        (plan(count) for count in (0, 3, 0, 1)),
        lambda requests: [ModelResponse(request.rows.fields["x"]) for request in requests],
        2,
    )
    assert found == [(2.0, 2), (5.0, 5), (2.0, 2), (3.0, 3)]


def test_joined_plans_are_one_plan():
    sizes = []

    def run(requests):
        sizes.append([len(request.rows) for request in requests])
        return [ModelResponse(request.rows.fields["x"]) for request in requests]

    ((found, rows),) = run_plans([join_plans([counting_plan(1, 1), counting_plan(2, 3)])], run, batch_size=100)
    assert found == [2.0, 12.0]
    assert rows == 8
    assert sizes == [[4], [2], [2]]


def test_running_out_of_memory_halves_the_batch():
    sizes = []

    def run(requests):
        count = sum(len(request.rows) for request in requests)
        if count > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(count)
        return [ModelResponse(request.rows.fields["x"]) for request in requests]

    found = run_plans([counting_plan(number, 2) for number in range(4)], run, batch_size=8)
    assert found == [(4.0 * number, 4) for number in range(4)]
    assert set(sizes) <= {1, 2}


def test_memory_that_never_suffices_is_an_error():
    def run(requests):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_plans([counting_plan(1, 1)], run, batch_size=8)


def test_the_same_class_serves_both_modalities():
    for modality in ("text", "image"):
        model, processor, _ = setting(modality)
        assert type(Occlusion(model, processor)) is Occlusion
        assert type(Saliency(model, processor)) is Saliency


def test_plans_compare_and_show_their_parts():
    model, processor, _ = setting("image")
    assert KernelShap(model, processor).plan == KernelShap(model, processor).plan
    assert KernelShap(model, processor, n_samples=64).plan != KernelShap(model, processor).plan
    assert "Coalitions(n_samples=64)" in repr(KernelShap(model, processor, n_samples=64).plan)
    assert isinstance(Saliency(model, processor).plan.gradient_input.reduce(torch.ones(1, 3, 2, 2), "sum"), Tensor)


@pytest.mark.parametrize("size", [(64, 64), (30, 47), (3, 2)])
def test_masks_are_enlarged_bilinearly(size):
    cells = torch.rand(4, 7, 5)
    slow = torch.nn.functional.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(enlarged(cells, size), slow, atol=1e-6)


def test_smooth_masks_are_shifted_pieces_of_an_enlarged_grid():
    """RISE's masks one by one, as in its authors' code, from the same random numbers."""
    layout = Layout((8, 8), (60, 44))
    (masks,) = SmoothMasks(5, grid_size=7).masks(layout, torch.Generator().manual_seed(3), 5)
    rng = torch.Generator().manual_seed(3)
    tall, wide = -(-60 // 7), -(-44 // 7)
    for mask in masks:
        drawn = torch.rand(7 * 7 + 2, generator=rng)
        coarse = (drawn[2:].reshape(1, 1, 7, 7) >= 0.5).float()
        upsampled = torch.nn.functional.interpolate(
            coarse, size=(8 * tall, 8 * wide), mode="bilinear", align_corners=False
        )
        y, x = int(drawn[0] * tall), int(drawn[1] * wide)
        assert torch.allclose(mask, upsampled[0, 0, y : y + 60, x : x + 44], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        (Occlusion, [9, 7, 1]),
        (partial(KernelShap, n_samples=40), [9, 9, 9, 9, 3, 1]),
        (partial(IntegratedGradients, n_steps=4), [5, 1]),
        (Saliency, [1, 1]),
    ],
)
def test_targets_that_are_given_need_no_run_of_their_own(method, sizes, monkeypatch):
    model, processor, inputs = setting("image")
    explain = method(model, processor, patch_size=8, batch_size=9)
    # The first call also checks the model.
    (expected,) = explain(inputs[0], None)
    runs, forward = [], type(model).forward

    def recorded(self, *arguments, **keywords):
        output = forward(self, *arguments, **keywords)
        runs.append(len(output.logits))
        return output

    monkeypatch.setattr(type(model), "forward", recorded)
    (found,) = explain(inputs[0], expected.targets[0])
    assert sorted(runs, reverse=True) == sizes
    assert found.n_evaluations == expected.n_evaluations == sum(sizes)
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)
    assert torch.allclose(found.scores, expected.scores, atol=1e-6)
    assert found.info["probabilities"] == pytest.approx(expected.info["probabilities"], abs=1e-6)
    runs.clear()
    explain(inputs[0], None)
    assert runs[0] == 1
    assert sum(runs) == sum(sizes)


@final
@dataclass(frozen=True)
class EagerPlan(Plan):
    """Reads the scores of the unperturbed sample before its first request, which `scores_first=False` does not allow."""

    scores_first: bool

    @property
    def needs(self):
        return PlanNeeds(scores_first=self.scores_first)

    def n_evaluations(self, layout):
        return 1

    def describe(self):
        return {}

    def run(self, prepared):
        before = prepared.scores
        response = yield ModelRequest(prepared.sample.rows, prepared.targets)
        return UnitAttribution((response.scores[0] - before).expand(*prepared.units.shape, -1).movedim(-1, 0))


def test_scores_that_a_plan_did_not_ask_for_first_are_not_there():
    class Eager(Explainer):
        def __init__(self, model, processor, scores_first):
            self.setup = Setup.create(Eager, model, processor, {})
            self.plan = EagerPlan(scores_first)

    model, processor, inputs = setting("image")
    (output,) = Eager(model, processor, True)(inputs[0], 0)
    assert output.attributions.abs().max() < 1e-6
    with pytest.raises(AssertionError, match="needs `scores_first`"):
        Eager(model, processor, False)(inputs[0], 0)
