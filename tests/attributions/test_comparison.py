"""Comparisons: statistics on known answers, runs that are killed and resumed, tables, reports and figures."""

import csv
import json
import math
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Unpack

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from interpreto import (
    METHODS,
    METRICS,
    Comparison,
    Deletion,
    Entropy,
    Grid,
    InputXGradient,
    Insertion,
    IntegratedGradients,
    KernelShap,
    ModelRandomization,
    MuFidelity,
    Occlusion,
    PointingGame,
    Rise,
    Saliency,
    SmoothGrad,
    compare,
    from_callables,
    zoo,
)
from interpreto.atomic import atomic_folder
from interpreto.attributions.assembly import Setup
from interpreto.attributions.explainer import Explainer
from interpreto.attributions.methods import RandomScores
from interpreto.attributions.metrics.metric_result import Needs
from interpreto.attributions.naming import unwrap_partial
from interpreto.attributions.options import Options
from interpreto.attributions.plans.model_independent import ModelIndependentPlan
from interpreto.comparison import fingerprint
from interpreto.comparison.ranking import rank_methods
from interpreto.errors import InputError, InterpretoError, OptionError, SavedFileError, TargetError
from tests.causal_lms import causal_lm
from tests.conftest import loaded
from tests.models import ALL_LIGHT, LIGHT_METRICS, TEXTS, image_model, light, some_images, text_model


class ScriptedPlan(ModelIndependentPlan):
    """A plan that runs the test's function for every sample."""

    def __init__(self, act):
        object.__setattr__(self, "act", act)

    def of(self, prepared):
        return self.act(prepared)


class ScriptedMethod(Explainer):
    """A method whose attributions the test's function computes."""

    def __init__(self, model, processor=None, *, act, **options: Unpack[Options]):
        self.setup = Setup.create(ScriptedMethod, model, processor, options)
        self.plan = ScriptedPlan(act)


def shapes_run(count=4, **options):
    examples = zoo.samples("shapes-vit", count)
    arguments = {
        "methods": {"Occlusion": Occlusion, "Saliency": Saliency},
        "metrics": "deletion,pointing-game",
        "masks": [example.truth for example in examples],
        "batch_size": 32,
        "show_progress": False,
        **options,
    }
    return compare(*loaded("shapes-vit"), [example.input for example in examples], **arguments)


def assert_close_numbers(one, other, tolerance=1e-5):
    """Check that two comparisons have the same numbers, up to the rounding of different batches."""
    assert one.methods == other.methods
    for metric in one.metrics:
        for method, values in one.values(metric).items():
            pair = values, other.values(metric)[method]
            assert torch.allclose(*pair, atol=tolerance, rtol=tolerance, equal_nan=True), (metric, method)
    for method in one.methods:
        for mine, theirs in zip(one.outputs(method), other.outputs(method), strict=True):
            assert torch.allclose(mine.attributions, theirs.attributions, atol=tolerance, rtol=tolerance)
            assert mine.target_names == theirs.target_names
            assert mine.n_evaluations == theirs.n_evaluations


def assert_same_numbers(one, other):
    """Check that two comparisons that ran the same batches have the same numbers, apart from time and memory."""
    assert_close_numbers(one, other, 0)
    assert [s for s in one.ranking if s.mean.count] == [s for s in other.ranking if s.mean.count]


@pytest.fixture(scope="module")
def shapes_comparison():
    return shapes_run(8, batch_size=32)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The folder of a finished run of four samples, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    shapes_run(4, folder=folder)
    return folder


@pytest.mark.long
def test_methods_beat_random_scores_where_the_truth_is_known():
    """All methods with few evaluations, on 64 scenes."""
    examples = zoo.samples("shapes-vit", 64)
    methods = {method.__name__: method for method in METHODS}
    few = {"Rise": 150, "Lime": 130, "KernelShap": 130, "GradientShap": 16, "SquareGrad": 10, "VarGrad": 10}
    methods |= {name: partial(methods[name], n_samples=count) for name, count in few.items()}
    methods["IntegratedGradients"] = partial(IntegratedGradients, n_steps=8)
    methods["Sobol"] = partial(methods["Sobol"], n_samples=120, grid_size=6)
    comparison = compare(
        *loaded("shapes-vit"),
        [example.input for example in examples],
        methods,
        "pointing-game",
        masks=[example.truth for example in examples],
        show_progress=False,
    )
    assert not comparison.failures
    for method in methods:
        gap = comparison.difference(method, "RandomScores", "PointingGame")
        assert gap.mean > 0
        assert gap.excludes(0), method
        assert comparison.ranked(method, "PointingGame").beats_random
    chance = comparison.ranked("RandomScores", "PointingGame").mean
    # By chance a patch touches the shape in about an eighth of the scenes.
    assert 0.03 < chance.mean < 0.28


@pytest.mark.long
def test_gradients_depend_on_what_the_model_has_learned():
    """Products with the input are known to change less under randomization."""
    comparison = shapes_run(
        64,
        methods=[Saliency, partial(SmoothGrad, n_samples=10), InputXGradient],
        metrics="model-randomization",
        masks=None,
    )
    means = {s.method: s.mean.mean for s in comparison.ranking}
    assert means["Saliency"] < 0.3
    assert means["SmoothGrad(n_samples=10)"] < 0.3
    assert means["RandomScores"] == pytest.approx(1)


def test_numbers_are_those_of_the_methods_and_metrics(shapes_comparison):
    model, processor = loaded("shapes-vit")
    examples = zoo.samples("shapes-vit", 8)
    pictures, masks = [e.input for e in examples], [e.truth for e in examples]
    outputs = Occlusion(model, processor)(pictures)
    for mine, theirs in zip(shapes_comparison.outputs("Occlusion"), outputs, strict=True):
        assert torch.allclose(mine.attributions, theirs.attributions, atol=1e-5)
    deleted = Deletion(model, processor).evaluate(outputs, pictures).per_sample
    assert torch.allclose(shapes_comparison.values("Deletion")["Occlusion"], deleted, atol=1e-5)
    pointed = PointingGame().evaluate(outputs, masks).per_sample
    assert torch.equal(shapes_comparison.values("PointingGame")["Occlusion"], pointed)
    cost = next(cost for cost in shapes_comparison.costs if cost.method == "Occlusion")
    assert cost.n_evaluations == outputs[0].n_evaluations
    assert cost.seconds > 0


@pytest.mark.parametrize("kind", ["text", "image", "generation", "functions"])
def test_every_metric_compares_on_every_task(kind):
    options = {"metrics": LIGHT_METRICS, "show_progress": False, "n_bootstrap": 50, "batch_size": 32}
    if kind == "functions":
        options["metrics"] = "all"
    elif kind != "image":
        # Only the images have masks.
        options["metrics"] = {
            name: metric for name, metric in LIGHT_METRICS.items() if unwrap_partial(metric).needs is not Needs.MASKS
        }
    methods = {"Occlusion": Occlusion, "Saliency": Saliency, "KernelShap": light(KernelShap)}
    if kind == "text":
        found = compare(*text_model("bert"), TEXTS, methods, corpus=TEXTS, **options)
        assert found.controls == ["RandomScores", "PositionOnly", "InputNorm", "TokenFrequency"]
    elif kind == "image":
        masks = [np.ones(picture.size[::-1], bool) for picture in some_images()]
        found = compare(*image_model("vit"), some_images(), methods, masks=masks, **options)
        assert found.controls == ["RandomScores", "PositionOnly", "InputNorm", "CentreGaussian"]
        assert len(found.metrics) == len(METRICS)
    elif kind == "generation":
        found = compare(*causal_lm("gpt2"), TEXTS[:2], methods, generation_kwargs={"max_new_tokens": 3}, **options)
        assert found.outputs("Occlusion")[0].target_names == found.outputs("Saliency")[0].target_names
    else:
        weight = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
        wrapper = from_callables(lambda x: np.einsum("bchw,chwk->bk", x, weight))
        picture = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
        found = compare(wrapper, None, picture, {"Occlusion": Occlusion, "Saliency": Saliency}, **options)
        assert found.controls == ["RandomScores", "PositionOnly", "CentreGaussian"]
        # Without gradients one method is left out; randomization needs a module with weights.
        assert {failure.method for failure in found.failures if failure.metric is None} == {"Saliency"}
        assert {failure.metric for failure in found.failures} == {None, "ModelRandomization"}
        return
    assert not found.failures
    assert str(found)


def test_methods_are_named_in_any_way():
    named = compare(*text_model("bert"), TEXTS[:1], "occlusion, kernel-shap", "entropy", show_progress=False)
    assert named.methods[:2] == ["Occlusion", "KernelShap"]
    listed = ["Occlusion", Saliency, partial(SmoothGrad, n_samples=3, base_method=InputXGradient)]
    classes = compare(*text_model("bert"), TEXTS[:1], listed, [Entropy], show_progress=False)
    assert classes.methods[:3] == ["Occlusion", "Saliency", "SmoothGrad(n_samples=3, base_method=InputXGradient)"]
    mapped = compare(*text_model("bert"), TEXTS[:1], {"mine": Occlusion}, {"spread": Entropy}, show_progress=False)
    assert (mapped.methods[0], mapped.metrics) == ("mine", ["spread"])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"methods": "occlusionn"}, OptionError, "did you mean 'occlusion'"),
        ({"methods": []}, OptionError, "No method is given"),
        ({"methods": [Occlusion, Occlusion]}, OptionError, "twice"),
        ({"methods": [Entropy]}, OptionError, "is not a method"),
        ({"methods": {"RandomScores": Occlusion}}, OptionError, "always included"),
        ({"metrics": [Occlusion]}, OptionError, "is not a metric"),
        ({"metrics": "pointing-game"}, OptionError, "needs masks="),
        ({"metrics": partial(Deletion, n_steps=0)}, OptionError, "n_steps"),
        ({"masks": [["plot"]] * 2}, InputError, "2 masks for 3"),
        ({"inputs": []}, InputError, "empty"),
        ({"granularitty": "word"}, OptionError, "did you mean 'granularity'"),
        ({"targets": [0, 1]}, TargetError, "list of 2"),
        ({"removals": ["nothing"], "metrics": "deletion"}, OptionError, "nothing"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_runs(arguments, error, words):
    with pytest.raises(error, match=words):
        compare(
            *text_model("bert"),
            **{"inputs": TEXTS, "methods": [Occlusion], "metrics": "entropy", "show_progress": False, **arguments},
        )


def test_all_methods_have_the_same_units_and_targets():
    """For a model without patches, the default of gradient methods is pixels, and that of other methods a grid."""
    model, processor = image_model("resnet")
    found = compare(model, processor, some_images(), [Occlusion, Saliency], "entropy", show_progress=False)
    shapes = {output.attributions.shape for method in found.methods for output in found.outputs(method)}
    assert len(shapes) == 1
    assert not found.agreement().isnan().any()
    several = compare(*text_model("bert"), TEXTS, [Occlusion, Saliency], "entropy", targets="all", show_progress=False)
    assert len({output.target_names for method in several.methods for output in several.outputs(method)}) == 1


def test_a_method_with_units_of_its_own_is_compared_too():
    methods = {"words": Occlusion, "sentences": partial(Occlusion, granularity="sentence"), "others": Saliency}
    found = compare(*text_model("bert"), TEXTS[:2], methods, [MuFidelity, Entropy], show_progress=False)
    assert not found.failures
    matrix = found.agreement()
    names = found.methods
    assert matrix[names.index("words"), names.index("sentences")].isnan()
    assert not matrix[names.index("words"), names.index("others")].isnan()


def test_a_failure_is_reported_and_the_run_continues():
    def act(prepared):
        if prepared.layout.count == 1:
            raise RuntimeError("one unit only")
        return torch.ones(prepared.units.shape)

    methods = {"Fragile": partial(ScriptedMethod, act=act), "Occlusion": Occlusion}
    texts = [TEXTS[0], "Dull", TEXTS[1]]
    found = compare(*text_model("bert"), texts, methods, [Deletion, Entropy], batch_size=16, show_progress=False)
    (failure,) = found.failures
    assert (failure.method, failure.metric, failure.samples) == ("Fragile", None, (1,))
    assert failure.error == "RuntimeError: one unit only"
    assert "Fragile failed on 1 sample (1): RuntimeError: one unit only" in str(found)
    assert [output is None for output in found.outputs("Fragile")] == [False, True, False]
    assert not found.values("Deletion")["Occlusion"].isnan().any()
    # The missing sample may be the hardest one.
    assert not any(s.best for s in found.ranking if s.method == "Fragile")


def test_a_sample_that_cannot_be_read_fails_for_every_method():
    long = "good " * 200
    found = compare(*text_model("bert"), [TEXTS[0], long], [Occlusion], [Entropy], show_progress=False)
    assert {failure.samples for failure in found.failures} == {(1,)}
    assert len(found.failures) == len(found.methods)
    assert found.samples[1] is None
    with pytest.raises(InputError, match="No method worked"):
        compare(*text_model("bert"), [long], [Occlusion], [Entropy], show_progress=False)


def test_a_single_sample_has_no_interval():
    found = compare(*text_model("bert"), TEXTS[1], [Occlusion, Saliency], "deletion", show_progress=False)
    for standing in found.ranking:
        assert standing.mean.count == 1
        assert math.isnan(standing.mean.low)
        assert not standing.not_worse_than_best
        assert standing.beats_random is None
    assert "only one sample" in str(found)
    assert "*" not in str(found).split("Mean over samples")[0]


def test_constant_attributions_have_defined_values():
    flat = {"Flat": partial(ScriptedMethod, act=lambda prepared: torch.zeros(prepared.units.shape))}
    examples = zoo.samples("shapes-vit", 2)
    found = compare(
        *loaded("shapes-vit"),
        [example.input for example in examples],
        flat,
        LIGHT_METRICS,
        batch_size=32,
        masks=[example.truth for example in examples],
        show_progress=False,
    )
    assert not found.failures
    undefined = {metric for metric in found.metrics if found.values(metric)["Flat"].isnan().any()}
    # Saliency promises no sum, and an information curve needs a confident prediction.
    assert undefined <= {"Completeness", "Pic"}
    assert not found.agreement().isnan().any()


def test_the_same_seed_gives_the_same_comparison():
    metrics = {"MuFidelity": LIGHT_METRICS["MuFidelity"]}
    options = {"methods": {"Rise": partial(Rise, n_samples=50)}, "metrics": metrics, "masks": None}
    first, again, other = (shapes_run(2, seed=seed, **options) for seed in (0, 0, 1))
    assert_same_numbers(first, again)
    assert not torch.equal(first.values("MuFidelity")["Rise"], other.values("MuFidelity")["Rise"])


# Runs


class Killed(BaseException):
    """An exception that ends a run like a kill: nothing catches it."""


# State between calls is kept outside the closure: runs are identified by the values in closures.
STATE = {"calls": 0, "broken": False}


def killed_at(calls):
    """A method that raises `Killed` at its n-th sample, and runs normally afterwards."""
    STATE["calls"] = -calls

    def act(prepared):
        STATE["calls"] += 1
        if STATE["calls"] == 0:
            raise Killed
        return prepared.sample.rows.fields["pixel_values"].mean() * torch.ones(prepared.units.shape)

    return {"Occlusion": Occlusion, "Mine": partial(ScriptedMethod, act=act), "Rise": partial(Rise, n_samples=20)}


@pytest.mark.usefixtures("without_report")
def test_a_killed_run_resumes_with_the_same_numbers(tmp_path):
    whole = shapes_run(methods=killed_at(0))
    methods = killed_at(3)
    with pytest.raises(Killed):
        shapes_run(methods=methods, folder=tmp_path / "run")
    part = Comparison.load(tmp_path / "run")
    assert 0 < len(part.records) < len(whole.records)
    assert "not finished: " in str(part)
    # Truncate the last line, as after a crash of the machine.
    records = tmp_path / "run" / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-30])
    done = len(records.read_bytes().splitlines()) - 1
    resumed = shapes_run(methods=methods, folder=tmp_path / "run")
    assert done > 0
    assert_same_numbers(resumed, whole)
    assert_same_numbers(Comparison.load(tmp_path / "run"), whole)


@pytest.mark.usefixtures("without_report")
def test_a_finished_run_is_not_run_again(tmp_path):
    first = shapes_run(folder=tmp_path / "run")

    again = shapes_run(folder=tmp_path / "run")
    assert_same_numbers(first, again)
    assert [cost.seconds for cost in again.costs] == [cost.seconds for cost in first.costs]
    # With more samples, the run continues from there.
    more = shapes_run(5, folder=tmp_path / "run")
    assert len(more.samples) == 5
    assert torch.equal(more.values("Deletion")["Saliency"][:4], first.values("Deletion")["Saliency"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": {"Occlusion": Occlusion}}, "other methods: Saliency is missing"),
        ({"methods": {"Occlusion": partial(Occlusion, removal="mean"), "Saliency": Saliency}}, "other methods"),
        ({"metrics": "deletion"}, "other metrics"),
        ({"seed": 1}, "other methods|other seed"),
        ({"masks": None, "metrics": "deletion"}, "other metrics"),
        ({"masks": [np.ones((64, 64), bool)] * 4}, "other masks"),
        (
            {"metrics": {"Deletion": partial(Deletion, n_steps=5), "PointingGame": PointingGame}},
            "other metrics: Deletion",
        ),
        ({"metrics": {"Deletion": Insertion, "PointingGame": PointingGame}}, "other metrics: Deletion"),
        ({"inference_mode": "softmax"}, "other methods: Occlusion, options"),
        ({"count": 2}, "comparison of 4 samples, more than the 2"),
    ],
)
def test_a_folder_of_another_run_is_refused(finished_run, change, words):
    before = (finished_run / "run.json").read_text()
    with pytest.raises(SavedFileError, match=words):
        shapes_run(**{"folder": finished_run, **change})
    assert (finished_run / "run.json").read_text() == before


def test_a_folder_with_other_samples_is_refused(finished_run):
    pictures = [example.input for example in zoo.samples("shapes-vit", 8)][4:]
    masks = [example.truth for example in zoo.samples("shapes-vit", 4)]
    with pytest.raises(SavedFileError, match=r"Sample 0 .* is not the one"):
        compare(
            *loaded("shapes-vit"),
            pictures,
            {"Occlusion": Occlusion, "Saliency": Saliency},
            "deletion,pointing-game",
            masks=masks,
            batch_size=8,
            folder=finished_run,
            show_progress=False,
        )


def damaged(folder, name):
    path = folder / name
    if name == "records.jsonl":
        lines = path.read_text().splitlines()
        lines[1] = lines[1][:40]
        path.write_text("\n".join(lines) + "\n")
    elif path.is_dir():
        first = json.loads((folder / "records.jsonl").read_text().splitlines()[0])
        pattern = f"{first['maps']}.safetensors" if name == "maps" else "*.safetensors"
        min(path.rglob(pattern)).write_bytes(b"no numbers")
    else:
        path.write_text(path.read_text()[:50])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run.json", "run.json .* is damaged"),
        ("records.jsonl", "Line 2 of records.jsonl"),
        ("maps", "Line 1 of records.jsonl .* or the numbers"),
        ("samples", "damaged"),
    ],
)
def test_a_damaged_folder_is_reported(run_copy, name, words):
    damaged(run_copy, name)
    for act in (Comparison.load, lambda folder: shapes_run(4, folder=folder)):
        with pytest.raises(SavedFileError, match=words):
            act(run_copy)


def test_folders_that_are_not_comparisons_are_not_overwritten(tmp_path, shapes_comparison):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-my-aunt.txt").write_text("Dear aunt,")
    with pytest.raises(SavedFileError, match="new folder"):
        shapes_run(2, folder=tmp_path / "letters")
    with pytest.raises(SavedFileError, match="not overwritten"):
        shapes_comparison.save(tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["to-my-aunt.txt"]
    with pytest.raises(SavedFileError, match=r"run.json is missing"):
        Comparison.load(tmp_path / "letters")
    newer = shapes_comparison.save(tmp_path / "newer")
    words = json.loads((newer / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps(words | {"version": 99}))
    with pytest.raises(SavedFileError, match="newer interpreto"):
        Comparison.load(newer)


@pytest.mark.parametrize("kind", ["image", "text", "generation"])
def test_saving_and_loading_is_a_round_trip(tmp_path, kind, shapes_comparison):
    if kind == "image":
        found = shapes_comparison
    elif kind == "text":
        methods = {"Occlusion": Occlusion, "tokens/all": partial(light(KernelShap), granularity="all-tokens")}
        found = compare(*text_model("bert"), TEXTS, methods, "deletion,entropy", show_progress=False)
    else:
        found = compare(*causal_lm("gpt2"), TEXTS[:2], [Occlusion], "deletion", targets=" film", show_progress=False)
    read = Comparison.load(found.save(tmp_path / "comparison"))
    assert_same_numbers(found, read)
    assert str(found) == str(read)
    again = Comparison.load(read.save(tmp_path / "comparison"))
    assert_same_numbers(again, read)
    with (tmp_path / "comparison" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.methods) * len(found.metrics)
    assert {row["method"] for row in rows} == set(found.methods)
    assert {path.name for path in (tmp_path / "comparison").iterdir()} >= {"report.html", "values.csv", "figures"}
    assert (tmp_path / "comparison" / "figures" / "scores.png").stat().st_size > 1000


@pytest.mark.usefixtures("without_report")
def test_results_of_deleted_files_are_kept(tmp_path):
    """Results are kept for image files that were deleted after they had been explained."""
    paths = []
    for number, picture in enumerate(some_images()[:2]):
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    model, processor = image_model("vit")
    arguments = {"methods": [Occlusion], "metrics": [Entropy], "folder": tmp_path / "run", "show_progress": False}
    first = compare(model, processor, paths, **arguments)
    paths[1].unlink()
    assert_same_numbers(compare(model, processor, paths, **arguments), first)
    # It is kept too if the record of another sample is lost.
    records = tmp_path / "run" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[1:]))
    # Only the file that can still be read is explained again.
    assert_close_numbers(compare(model, processor, paths, **arguments), first)
    assert_close_numbers(Comparison.load(tmp_path / "run"), first)


@pytest.mark.usefixtures("without_report")
def test_failed_samples_are_run_again(tmp_path):
    STATE["broken"] = True

    def act(prepared):
        if STATE["broken"]:
            raise RuntimeError("no memory")
        return torch.ones(prepared.units.shape)

    arguments = {"methods": {"Fragile": partial(ScriptedMethod, act=act), "Occlusion": Occlusion}, "metrics": "entropy"}
    assert shapes_run(**arguments, masks=None, folder=tmp_path / "run").failures
    STATE["broken"] = False
    again = shapes_run(**arguments, masks=None, folder=tmp_path / "run")
    assert not again.failures
    assert not Comparison.load(tmp_path / "run").failures


def test_other_files_in_a_folder_are_kept(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    shapes_run(2, folder=tmp_path / "link")
    (tmp_path / "real" / "notes.txt").write_text("mine")
    shapes_run(3, folder=tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "real" / "report.html").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shapes_run(2, folder=".")
    assert len(Comparison.load(".").samples) == 2


def test_files_written_while_a_folder_is_replaced_are_kept(tmp_path, monkeypatch):
    place = tmp_path / "kept"
    place.mkdir()
    (place / "mark").write_text("old")
    rename = Path.rename

    def interrupted(self, target):
        if self.parent.name.startswith(".kept.") and self.name == "kept":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(place, "mark") as folder:
        (folder / "mark").write_text("new")
    assert (place / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_runs_are_recognised_in_another_process(tmp_path):
    """Images and sets as masks, functions as options: their repr differs between processes."""
    first, second = (
        [fingerprint.digest(make()) for make in (lambda: Image.new("L", (4, 4)), lambda: {"plot", "not", "good"})]
        for _ in range(2)
    )
    assert first == second
    assert fingerprint.fingerprint({"b", "a"}) == ["a", "b"]
    twice, thrice = (lambda x: x * 2), (lambda x: x * 3)
    assert " at 0x" not in fingerprint.fingerprint(twice)
    assert fingerprint.fingerprint(twice) != fingerprint.fingerprint(thrice)
    assert fingerprint.fingerprint(partial(Occlusion, removal="mean")) == "Occlusion(removal='mean')"
    corpus = [f"text {number}" for number in range(100)]
    assert len(str(fingerprint.fingerprint(corpus))) < 50
    assert fingerprint.fingerprint(corpus) != fingerprint.fingerprint(corpus[::-1])
    assert fingerprint.fingerprint(torch.zeros(2)) != fingerprint.fingerprint(torch.ones(2))
    assert " at 0x" not in json.dumps(fingerprint.fingerprint({"x": object(), "y": [torch.float32, Path("a")]}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_bootstrap": 0}, "n_bootstrap"),
        ({"metrics": [partial(Entropy, n_steps=1)]}, "Entropy has no option 'n_steps'"),
        ({"metrics": [partial(ModelRandomization, steps=1)]}, "did you mean 'n_steps'"),
        ({"masks": ["not", "charming", "Dull"]}, "'not' is a text"),
        ({"removals": ["mask", "mask"], "metrics": "deletion"}, "mask is a duplicate"),
        ({"methods": {1: Occlusion, "1": Saliency}}, "1 is given twice"),
    ],
)
def test_more_wrong_arguments_are_reported_before_anything_runs(change, words):
    with pytest.raises(InterpretoError, match=words):
        compare(
            *text_model("bert"),
            **{"inputs": TEXTS, "methods": [Occlusion], "metrics": "entropy", "show_progress": False, **change},
        )


def test_removals_are_given_in_any_form():
    arguments = {"inputs": TEXTS[:2], "methods": [Occlusion], "show_progress": False}
    for given in ("mask,unk", iter(["mask", "unk"]), ["mask", "unk"]):
        found = compare(*text_model("bert"), metrics=[Deletion, Entropy], removals=given, **arguments)
        assert found.metrics == ["Deletion [mask]", "Deletion [unk]", "Entropy"]
    (conclusion,) = compare(*text_model("bert"), metrics="deletion", removals=[None, "unk"], **arguments).conclusions()
    assert conclusion.removals == ("default", "unk")
    own = compare(*text_model("bert"), metrics=[partial(Deletion, removal="mask")], removals=["unk"], **arguments)
    assert own.metrics == ["Deletion(removal='mask')"]
    pictures = {**arguments, "inputs": some_images()[:1]}
    caught = compare(*image_model("vit"), metrics="pic,deletion", removals=0.5, **pictures)
    # Pixels that are not revealed are interpolated for any removal operator.
    assert caught.metrics == ["Pic", "Deletion [0.5]"]


def test_methods_with_their_own_units_are_compared_with_shared_ones(tmp_path):
    methods = {"shared": Occlusion, "own": partial(Saliency, granularity="pixel")}
    for shared in ({"granularity": Grid(3, 3)}, {"patch_size": 8}):
        found = compare(*image_model("vit"), some_images()[:1], methods, "deletion", show_progress=False, **shared)
        assert not found.failures
    words = {"words": Occlusion, "tokens": partial(Occlusion, granularity="token")}
    folder = tmp_path / "run"
    said = compare(
        *causal_lm("gpt2"), TEXTS[:1], words, "deletion", targets=" good movie", folder=folder, show_progress=False
    )
    assert not said.failures
    assert (folder / "report.html").exists()
    # Maps over tokens and maps over words cannot be rows of the same figure.
    assert "tokens" in said.methods


def test_names_in_any_script_are_drawn(tmp_path):
    name = "top $5_{$ " + "x" * 260
    found = shapes_run(1, methods={name: Occlusion}, metrics={"$^": Entropy}, masks=None, folder=tmp_path / "run")
    assert_same_numbers(Comparison.load(tmp_path / "run"), found)
    # The name is wrapped, character by character.
    assert "x" * 30 in str(found)


def test_few_samples_give_no_significant_difference():
    found = shapes_run(4)
    assert not any(standing.not_worse_than_best or standing.beats_random for standing in found.ranking)
    assert "fewer than 6 samples" in str(found)


# Statistics


def simulated(means, count=40, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=count)
    return {name: torch.from_numpy(mean + shared + noise * rng.normal(size=count)) for name, mean in means.items()}


def test_the_best_methods_are_found_by_paired_differences():
    values = simulated({"good": 1.0, "as good": 0.99, "worse": 0.8, "RandomScores": 0.0, "lucky": 1.2})
    found = {s.method: s for s in rank_methods("m", values, ["RandomScores", "lucky"], True, 500, 0)}
    assert found["good"].best
    assert found["as good"].not_worse_than_best
    # The variance shared by the samples is larger than the difference; pairing removes it.
    assert found["worse"].mean.high > found["good"].mean.low
    assert not found["worse"].not_worse_than_best
    assert not found["lucky"].best
    assert found["lucky"].not_worse_than_best
    assert found["worse"].beats_random
    assert found["RandomScores"].to_random is None
    turned = {s.method: s for s in rank_methods("m", values, ["RandomScores", "lucky"], False, 500, 0)}
    assert turned["worse"].best
    assert turned["RandomScores"].not_worse_than_best
    assert turned["good"].beats_random is False
    assert all(s.to_best is None and not s.not_worse_than_best for s in rank_methods("m", values, [], None, 500, 0))


def test_methods_that_leave_samples_out_are_not_best():
    values = simulated({"whole": 0.5, "part": 1.0, "RandomScores": 0.0})
    values["part"][:3] = torch.nan
    found = {s.method: s for s in rank_methods("m", values, ["RandomScores"], True, 200, 0)}
    assert found["whole"].best
    assert not found["part"].best
    nothing = rank_methods("m", {"none": torch.full((4,), torch.nan)}, [], True, 200, 0)
    assert nothing[0].to_best is None


def test_infinite_values_have_no_interval():
    values = {"wild": torch.tensor([1.0, math.inf, 2.0]), "tame": torch.tensor([1.0, 1.0, 2.0])}
    found = {s.method: s for s in rank_methods("m", values, [], False, 100, 0)}
    assert found["tame"].best
    assert found["wild"].mean.mean == math.inf
    assert math.isnan(found["wild"].mean.low)


def test_agreement_is_spearmans_and_the_common_top(shapes_comparison):
    ranks, tops = shapes_comparison.agreement(), shapes_comparison.agreement(top=0.1)
    names = shapes_comparison.methods
    for one in names:
        for other in names:
            pairs = [
                (a.attributions[0].flatten().numpy(), b.attributions[0].flatten().numpy())
                for a, b in zip(shapes_comparison.outputs(one), shapes_comparison.outputs(other), strict=True)
            ]
            place = names.index(one), names.index(other)
            expected = np.mean([1.0 if one == other else spearmanr(*pair).statistic for pair in pairs])
            assert float(ranks[place]) == pytest.approx(expected, abs=1e-5)
            common = [
                len(set(np.argsort(-a, kind="stable")[:6]) & set(np.argsort(-b, kind="stable")[:6])) / 6
                for a, b in pairs
            ]
            assert float(tops[place]) == pytest.approx(np.mean(common), abs=1e-5)


def test_conclusions_say_how_much_depends_on_the_removal_operator():
    methods = [Occlusion, Saliency, InputXGradient]
    found = shapes_run(4, methods=methods, metrics=[Deletion, Entropy], masks=None, removals=["zeros", "blur", 1.0])
    assert found.metrics == ["Deletion [zeros]", "Deletion [blur]", "Deletion [1.0]", "Entropy"]
    (conclusion,) = found.conclusions()
    assert (conclusion.metric, conclusion.removals) == ("Deletion", ("zeros", "blur", "1.0"))
    for number, removal in enumerate(conclusion.removals):
        means = {m: found.ranked(m, f"Deletion [{removal}]").mean.mean for m in ("Occlusion", "Saliency")}
        assert conclusion.best[number] == min(
            found.methods[:3], key=lambda m: found.ranked(m, f"Deletion [{removal}]").mean.mean
        )
        assert len(set(means.values())) == 2
    assert torch.allclose(conclusion.agreement.diag(), torch.ones(3))
    model, processor = loaded("shapes-vit")
    pictures = [example.input for example in zoo.samples("shapes-vit", 4)]
    blurred = Deletion(model, processor, removal="blur").evaluate(Occlusion(model, processor)(pictures), pictures)
    assert torch.allclose(found.values("Deletion [blur]")["Occlusion"], blurred.per_sample, atol=1e-5)
    assert "Deletion, best mean by removal operator" in str(found)


# Tables, reports and figures


class PageCollector(HTMLParser):
    """Collects the tags, links and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_without_a_network(tmp_path, shapes_comparison):
    reader = PageCollector()
    reader.feed(shapes_comparison.report(tmp_path / "report.html").read_text())
    assert "script" not in reader.tags
    assert all(source.startswith("data:") for source in reader.sources)
    assert reader.tags.count("img") == 1 + 4
    for word in ("Deletion", "PointingGame", "Occlusion", "RandomScores (c)", "Agreement", "peak memory", "Sample 3"):
        assert word in reader.text


def test_hostile_names_and_texts_are_escaped(tmp_path):
    nasty = "<script>alert(1)</script>"
    texts = [f"good {nasty} film", "dull [red]plot[/red]"]
    methods = {f"{nasty}": Occlusion, "[bold]x": Saliency}
    found = compare(*text_model("bert"), texts, methods, {"[mask]": Deletion}, show_progress=False)
    reader = PageCollector()
    page = found.report(tmp_path / "report.html").read_text()
    reader.feed(page)
    assert "script" not in reader.tags
    assert nasty in reader.text
    assert "[bold]x" in str(found)
    assert "[mask]" in str(found)
    assert_same_numbers(found, Comparison.load(found.save(tmp_path / "saved")))
    assert nasty not in found._repr_html_()


@pytest.mark.parametrize("kind", ["image", "text"])
def test_maps_share_one_scale(tmp_path, kind, shapes_comparison):
    if kind == "image":
        figure = shapes_comparison.plot_maps(1, tmp_path / "maps.png")
        drawn = [image for axes in figure.axes for image in axes.images if image.norm.vmin == -1]
        assert len(drawn) == len(shapes_comparison.methods)
        assert {(image.norm.vmin, image.norm.vmax) for image in drawn} == {(-1, 1)}
        assert {float(np.abs(image.get_array()).max()) for image in drawn} == {1.0}
        with Image.open(tmp_path / "maps.png") as picture:
            assert picture.width > 500
        return
    found = compare(*text_model("bert"), TEXTS, [Occlusion, Saliency], "entropy", show_progress=False)
    page = found.plot_maps(1)
    assert page.count("<h3>") == len(found.methods)
    assert ">-1<" in page.replace("<small>", ">")
    with pytest.raises(InputError, match="no sample 3"):
        found.plot_maps(3)


def test_scores_are_drawn_against_cost(shapes_comparison):
    figure = shapes_comparison.plot()
    assert [axes.get_title() for axes in figure.axes] == ["Deletion (low is good)", "PointingGame (high is good)"]
    for axes in figure.axes:
        assert len(axes.containers) == len(shapes_comparison.methods)
        assert axes.get_xscale() == "log"


def test_data_frames_hold_all_numbers(shapes_comparison):
    frame = shapes_comparison.to_pandas()
    assert len(frame) == len(shapes_comparison.methods) * len(shapes_comparison.metrics)
    row = frame[(frame.method == "Saliency") & (frame.metric == "Deletion")].iloc[0]
    standing = shapes_comparison.ranked("Saliency", "Deletion")
    assert row["mean"] == standing.mean.mean
    assert (row["low"], row["high"]) == (standing.mean.low, standing.mean.high)
    assert row["not_worse_than_best"] == standing.not_worse_than_best
    values = shapes_comparison.to_pandas(per_sample=True)
    assert np.allclose(
        values[(values.method == "Saliency") & (values.metric == "Deletion")]["value"],
        shapes_comparison.values("Deletion")["Saliency"],
    )


def test_the_table_marks_the_best_and_chance(shapes_comparison):
    lines = {
        line.split()[0]: line
        for line in str(shapes_comparison).splitlines()
        if ("[" in line and "°" in line) or "*" in line
    }
    best = next(s.method for s in shapes_comparison.ranking if s.best and s.metric == "Deletion")
    assert "*" in lines[best]
    assert "°" in lines["PositionOnly"]
    with pytest.raises(OptionError, match="did you mean 'Deletion'"):
        shapes_comparison.values("Deletionn")
    with pytest.raises(OptionError, match="no method"):
        shapes_comparison.outputs("Nobody")


def test_light_methods_are_all_compared_on_texts():
    found = compare(*text_model("bert"), TEXTS, ALL_LIGHT, ["deletion", "completeness"], show_progress=False)
    reasons = {failure.method: failure.error for failure in found.failures}
    assert set(reasons) == {"GradCam", "XRAI"}
    assert reasons["GradCam"] == "UnsupportedError: GradCam explains image models; the input of this model is text."
    assert set(ALL_LIGHT) < set(found.methods)
    assert isinstance(found.samples[0], type(RandomScores(*text_model("bert"))(TEXTS[0])[0]))
