"""Pickled explainers, in other processes."""

import multiprocessing
import pickle

import pytest
import torch

from interpreto import IMAGES_ONLY, METHODS, XRAI, GradCam, LeGrad, Occlusion, SmoothGrad
from tests.causal_lms import causal_lm
from tests.dual_encoders import dual_encoder_model
from tests.models import TEXTS, image_model, light, some_images, text_model

TASKS = {
    "text-classification": lambda: (*text_model("bert"), TEXTS[1], 0, {}),
    "image-classification": lambda: (*image_model("vit"), some_images()[0], 0, {}),
    "text-generation": lambda: (*causal_lm("llama"), "A film", " and we saw", {}),
    "similarity of images": lambda: (*dual_encoder_model("clip"), some_images()[0], "a red circle", {}),
    "similarity of texts": lambda: (
        *dual_encoder_model("clip"),
        "a red circle",
        some_images()[0],
        {"modality": "text"},
    ),
    "similarity of OpenCLIP": lambda: (*dual_encoder_model("open-clip"), some_images()[0], "a red circle", {}),
}
READ_INTERNALS = {
    "RawAttention", "AttentionRollout", "AttentionSaliency", "AGCam", "GenericAttention", "LeGrad", "GradEclip",
}  # fmt: skip


def supports(method, task):
    if method in IMAGES_ONLY:
        return task in ("image-classification", "similarity of images", "similarity of OpenCLIP")
    return task != "text-generation" or method.__name__ not in READ_INTERNALS


def methods_and_tasks():
    """Every method on every task that it knows; one task of each in turn where it should be quick."""
    for number, method in enumerate(METHODS):
        tasks = [task for task in TASKS if supports(method, task)]
        for place, task in enumerate(tasks):
            marks = () if place == number % len(tasks) else pytest.mark.long
            yield pytest.param(method, task, marks=marks, id=f"{method.__name__}-{task}")


@pytest.mark.parametrize(("method", "task"), list(methods_and_tasks()))
def test_every_explainer_can_be_pickled(method, task):
    """Explainers can be pickled before and after use."""
    model, processor, one, target, options = TASKS[task]()
    explainer = light(method, **options)(model, processor)
    fresh = pickle.loads(pickle.dumps(explainer))
    (expected,) = explainer(one, target)
    used = pickle.loads(pickle.dumps(explainer))
    for again in (fresh, used):
        (found,) = again(one, target)
        assert torch.allclose(found.attributions, expected.attributions, atol=1e-6, equal_nan=True)
        assert found.target_names == expected.target_names


def explained(job):
    explainer, one, target = job
    torch.set_num_threads(1)
    return explainer(one, target)[0].attributions.tolist()


def test_a_spawned_process_finds_the_same():
    jobs, expected = [], []
    for task, build in TASKS.items():
        model, processor, one, target, options = build()
        for method in (Occlusion, SmoothGrad, LeGrad, GradCam, XRAI):
            if supports(method, task):
                explainer = light(method, **options)(model, processor)
                expected.append(explainer(one, target)[0].attributions)
                jobs.append((explainer, one, target))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(explained, jobs)
    for maps, wanted in zip(found, expected, strict=True):
        assert torch.allclose(torch.tensor(maps), wanted, atol=1e-5, equal_nan=True)
