"""Atomic writes, locks, and the detection of files that were changed on disk."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import sklearn
import torch
from sklearn.cluster import KMeans

from interpreto import (
    XRAI,
    AttributionOutput,
    Comparison,
    Entropy,
    IntegratedGradients,
    KernelShap,
    Occlusion,
    compare,
)
from interpreto.atomic import FolderLock, atomic_folder, readable_folder
from interpreto.attributions.methods import RandomScores
from interpreto.attributions.serialization import verify_checksum, with_checksum
from interpreto.comparison import fingerprint
from interpreto.errors import SavedFileError
from tests.conftest import reduced
from tests.interrupts import interrupted_at, lines_of
from tests.models import TEXTS, image_model, light, some_images, text_model

KILLS = 25


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(params=["text", "image"], scope="module")
def results(request):
    """Two results of one sample, so that either can replace the other."""
    if request.param == "text":
        explain = light(KernelShap)(*text_model("bert"))
        return [explain(TEXTS[1], targets=target)[0] for target in (0, (1, 2))]
    explain = light(XRAI)(*image_model("vit"))
    return [explain(some_images()[0], targets=target)[0] for target in (0, (1, 2))]


def test_an_interrupted_save_leaves_the_old_or_the_new_result(results, tmp_path):
    """An interrupt at every line of the package, without cleanup, as after a kill."""
    old, new = results
    place = tmp_path / "result"

    def save():
        new.save(place)

    old.save(place)
    for line in lines_of(save):
        shutil.rmtree(place)
        old.save(place)
        interrupted_at(save, line)
        found = AttributionOutput.load(place)
        assert found.target_names in (old.target_names, new.target_names)
    new.save(place)
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_folder_is_found_between_the_two_renames(tmp_path):
    """A process killed between them leaves the old folder next to its destination; the next save cleans up."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    place = tmp_path / "result"
    with atomic_folder(place, "mark") as folder:
        (folder / "mark").write_text("old")
        name = folder.parent.name.replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-")
    around = tmp_path / name
    around.mkdir()
    place.rename(around / "before")
    assert (readable_folder(place) / "mark").read_text() == "old"
    with atomic_folder(place, "mark") as folder:
        (folder / "mark").write_text("new")
    assert (place / "mark").read_text() == "new"
    assert listing(tmp_path) == ["result", "result/mark"]


RUN = """
import sys, torch
torch.set_num_threads(1)
from tests.test_atomic import small_run
print("ready", flush=True)
small_run(sys.argv[1], batch_size=4)
"""


def small_run(folder, **options):
    methods = {"Occlusion": Occlusion, "IG": partial(IntegratedGradients, n_steps=3)}
    return compare(
        *text_model("bert"), TEXTS * 4, methods, metrics=[Entropy], folder=folder, show_progress=False, **options
    )


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    compare(*text_model("bert"), TEXTS, [Occlusion], metrics=[Entropy], folder=folder, show_progress=False)
    return folder


@pytest.mark.long
def test_killed_runs_resume_and_leave_no_temporary_files(tmp_path):
    """Killed at random moments, again and again, until one run completes."""
    whole = small_run(tmp_path / "whole", batch_size=4)
    draw, kills = random.Random(0), 0
    folder = tmp_path / "run"
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.random() * 0.8)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if (folder / "run.json").exists():
            assert len(Comparison.load(folder).records) <= len(whole.records)
        if kills >= 5:
            break
    small_run(folder, batch_size=4)
    assert kills
    found = Comparison.load(folder)
    for method in whole.methods:
        for one, other in zip(found.outputs(method), whole.outputs(method), strict=True):
            assert torch.equal(one.attributions, other.attributions)
    assert [name for name in listing(folder) if ".part" in name or "lock" in name] == []
    assert {name for name in listing(folder) if not name.startswith("maps")} == {
        name for name in listing(tmp_path / "whole") if not name.startswith("maps")
    }


@pytest.mark.parametrize("name", [".run.json.part", ".run.json.{host}-{dead}-0.part"])
def test_a_run_that_was_killed_at_its_beginning_can_begin(tmp_path, name):
    from interpreto.atomic import _HOST

    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / name.format(host=_HOST, dead=int(dead.stdout))).write_text('{"versi')
    small_run(tmp_path)
    assert Comparison.load(tmp_path).records


def hold_lock(path, ready, done):
    with FolderLock(path, lambda holder: f"held by {holder}"):
        ready.set()
        done.wait()


def test_a_second_process_is_refused_with_the_id_of_the_writer(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(tmp_path / "run" / "run.lock", ready, done))
    process.start()
    assert ready.wait(60)
    with pytest.raises(SavedFileError, match=f"Process {process.pid} is writing the comparison in .*run'"):
        small_run(tmp_path / "run")
    # However a process ends, its lock is released.
    process.kill()
    process.join()
    assert (tmp_path / "run" / "run.lock").exists()
    small_run(tmp_path / "run")
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_second_thread_is_refused_too(tmp_path):
    with (
        FolderLock(tmp_path / "lock", lambda holder: holder),
        pytest.raises(SavedFileError, match=str(os.getpid())),
        FolderLock(tmp_path / "lock", lambda holder: f"held by {holder}"),
    ):
        pass
    with FolderLock(tmp_path / "lock", lambda holder: holder):
        pass


def corruptions(content, draw, count):
    """The content with a bit flipped, truncated, with bytes removed or replaced, or with a digit changed."""
    for _ in range(count):
        place, kind = draw.randrange(len(content)), draw.randrange(5)
        if kind == 0:
            yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        elif kind == 1:
            yield content[:place]
        elif kind == 2:
            yield content[:place] + content[place + draw.randrange(1, 9) :]
        elif kind == 3:
            yield content[:place] + bytes(draw.randrange(256) for _ in range(4)) + content[place + 4 :]
        else:
            # The changed number is still a number.
            digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
            at = draw.choice(digits) if digits else place
            yield content[:at] + bytes([48 + (content[at] - 47) % 10]) + content[at + 1 :]


def equal_outputs(one, other):
    same = all(
        (getattr(one, name) is None and getattr(other, name) is None)
        or (getattr(one, name) is not None and torch.equal(getattr(one, name), getattr(other, name)))
        for name in ("attributions", "scores", "standard_errors", "completeness_gap", "segments")
    )
    same &= all(
        getattr(one, name) == getattr(other, name)
        for name in ("targets", "target_names", "task", "modality", "granularity", "n_evaluations", "info", "error")
    )
    raw = (one.raw_input, other.raw_input)
    same &= raw[0] == raw[1] if isinstance(raw[0], str | tuple) else np.array_equal(*map(np.asarray, raw))
    elements = (one.elements, other.elements)
    return same and (torch.equal(*elements) if isinstance(elements[0], torch.Tensor) else elements[0] == elements[1])


def test_no_damage_of_a_result_goes_unnoticed(results, tmp_path):
    saved = results[1].save(tmp_path / "result")
    draw = random.Random(0)
    for path in sorted(saved.iterdir()):
        content = path.read_bytes()
        for changed in corruptions(content, draw, reduced(160)):
            path.write_bytes(changed)
            try:
                found = AttributionOutput.load(saved)
            except SavedFileError:
                continue
            assert equal_outputs(found, results[1])
        path.write_bytes(content)


@pytest.mark.usefixtures("without_report")
def test_no_damage_of_a_run_goes_unnoticed(tmp_path):
    whole = compare(
        *image_model("vit"), some_images(), [Occlusion, light(XRAI)], metrics=[Entropy], folder=tmp_path / "run",
        show_progress=False,
    )  # fmt: skip
    draw = random.Random(1)
    views = ("table.csv", "values.csv", "report.html", "figures")
    files = [path for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()]
    for path in files:
        if set(path.relative_to(tmp_path / "run").parts) & set(views):
            continue
        content = path.read_bytes()
        for changed in corruptions(content, draw, reduced(40)):
            path.write_bytes(changed)
            try:
                found = Comparison.load(tmp_path / "run")
            except SavedFileError:
                continue
            # A kill may truncate the last line: that record is left out, and all others are unchanged.
            assert set(found.records) <= set(whole.records)
            for key, record in found.records.items():
                assert equal_outputs(record.output, whole.records[key].output)
                assert str(record.values) == str(whole.records[key].values)
        path.write_bytes(content)


def change_with_checksum(path, change):
    words = verify_checksum(path.read_text())
    change(words)
    path.write_text(with_checksum(words))


FIELDS = {
    "scores": lambda words: words.update(target_names=words["target_names"][:1]),
    "targets": lambda words: words.update(targets=words["targets"][:1]),
    "target": lambda words: words.update(targets=[{"name": 1}, 2]),
    "booleans": lambda words: words.update(targets=[True, 2]),
    "task": lambda words: words.update(
        task="text-generation" if words["modality"] == "image" else "image-classification"
    ),
    "modality": lambda words: words.update(modality="sound"),
    "n_evaluations": lambda words: words.update(n_evaluations=-1),
    "n_evaluations too many": lambda words: words.update(n_evaluations=2**70),
    "n_evaluations text": lambda words: words.update(n_evaluations="5"),
    "info": lambda words: words.update(info=[1]),
    "names": lambda words: words.update(target_names=[1, 2]),
    "elements": lambda words: words.update(elements=["a"]),
    "granularity": lambda words: words.update(granularity=3),
    "raw_input": lambda words: words.update(raw_input=5),
    "error": lambda words: words.update(error="gone"),
    "files": lambda words: words.update(files={"../other.safetensors": "0"}),
    "unknown": lambda words: words.update(more=1),
    "deep": lambda words: words.update(targets=json.loads("[" * 400 + "1" + "]" * 400)),
}


@pytest.mark.parametrize("field", FIELDS)
def test_inconsistent_fields_are_refused(results, tmp_path, field):
    """Also if the checksum was updated after the change."""
    saved = results[1].save(tmp_path / "result")
    change_with_checksum(saved / "output.json", FIELDS[field])
    with pytest.raises(SavedFileError, match="damaged"):
        AttributionOutput.load(saved)


def test_results_of_the_first_format_are_refused_by_their_version(results, tmp_path):
    saved = results[0].save(tmp_path / "result")
    words = verify_checksum((saved / "output.json").read_text())
    (saved / "output.json").write_text(json.dumps({**words, "version": 1}))
    with pytest.raises(SavedFileError, match="older interpreto \\(format 1, this one reads format 2\\)"):
        AttributionOutput.load(saved)


RECORDS = {
    "method": lambda words: words.update(method="Other"),
    "sample": lambda words: words.update(sample=99),
    "negative": lambda words: words.update(sample=-1),
    "path": lambda words: words.update(maps="../../00000-00002-0123456789abcdef"),
    "metric": lambda words: words.update(values={"Other": 1.0}),
    "value": lambda words: words.update(values={"Entropy": [1]}),
    "rows": lambda words: words.update(n_evaluations=-3),
    "elements": lambda words: words.update(elements=["a", "b"]),
    "more": lambda words: words.update(more=1),
}


@pytest.mark.parametrize("field", RECORDS)
def test_records_of_other_runs_are_refused(run_copy, field):
    path = run_copy / "records.jsonl"
    lines = path.read_text().splitlines()
    words = verify_checksum(lines[0])
    RECORDS[field](words)
    path.write_text("\n".join([with_checksum(words), *lines[1:]]) + "\n")
    with pytest.raises(SavedFileError, match=r"Line 1 of records\.jsonl"):
        Comparison.load(run_copy)


CONFIGS = {
    "count": lambda words: words.update(count=10**15),
    "no count": lambda words: words.pop("count"),
    "zero": lambda words: words.update(count=0),
    "fewer": lambda words: words.update(count=1),
    "resamples": lambda words: words.update(n_bootstrap=10**15),
    "methods": lambda words: words.update(methods=["Occlusion"]),
    "controls": lambda words: words["methods"]["Occlusion"].update(control="no"),
    "metrics": lambda words: words["metrics"]["Entropy"].update(base=1),
    "more": lambda words: words.update(more=1),
}


@pytest.mark.parametrize("field", CONFIGS)
def test_the_config_of_a_run_is_checked(run_copy, field):
    change_with_checksum(run_copy / "run.json", CONFIGS[field])
    with pytest.raises(SavedFileError):
        Comparison.load(run_copy)


def segments_of(count):
    def segments(image):
        columns = np.arange(image.shape[1]) * count // image.shape[1]
        return np.broadcast_to(columns, image.shape[:2])

    return segments


def doubled(values, by=2):
    return [by * value for value in values]


@pytest.mark.usefixtures("without_report")
def test_a_run_with_another_function_is_another_run(tmp_path):
    """XRAI with other segments, which are in the closure of a function of the same name."""

    def run(count):
        methods = {
            "XRAI": partial(XRAI, segments=segments_of(count), base_attribution=partial(IntegratedGradients, n_steps=2))
        }
        return compare(
            *image_model("vit"),
            some_images()[:1],
            methods,
            metrics=[Entropy],
            folder=tmp_path / "run",
            show_progress=False,
        )

    first = run(2)
    again = run(2)
    assert torch.equal(first.outputs("XRAI")[0].attributions, again.outputs("XRAI")[0].attributions)
    with pytest.raises(SavedFileError, match="other methods: XRAI, options, segments"):
        run(4)


def test_functions_are_identified_by_what_they_do():
    caught = fingerprint.fingerprint

    def made(source, **names):
        space = dict(names)
        exec(source, space)
        return space["f"]

    plain = "def f(x):\n    return [y + 1 for y in x]"
    alike = [
        (made(plain), made(plain)),
        (segments_of(2), segments_of(2)),
        (partial(doubled, by=3), partial(doubled, by=3)),
        (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 1)(x)),
        (made("def f(x, k=(1, 2)): return x"), made("def f(x, k=(1, 2)): return x")),
        (made("def f(x): return f(x)"), made("def f(x): return f(x)")),
        (partial(Occlusion, removal="mean"), partial(Occlusion, removal="mean")),
    ]
    unlike = [
        (made(plain), made(plain.replace("+ 1", "+ 2"))),
        (segments_of(2), segments_of(3)),
        (partial(doubled, by=3), partial(doubled, by=4)),
        (lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)),
        (made("def f(x, k=(1, 2)): return x"), made("def f(x, k=(1, 3)): return x")),
        (made("def f(x, *, k=1): return x"), made("def f(x, *, k=2): return x")),
        (made("def f(x): return K * x", K=1), made("def f(x): return K * x", K=2)),
        (partial(XRAI, segments=segments_of(2)), partial(XRAI, segments=segments_of(3))),
        (np.zeros(3), np.ones(3)),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
    ]
    for one, other in alike:
        assert caught(one) == caught(other)
        assert "0x" not in json.dumps(caught(one))
    for one, other in unlike:
        assert caught(one) != caught(other)


def test_fingerprints_visit_every_function_once():
    """A graph of 40 functions, each of which refers to the two before it, has 2**27 paths."""

    def function(constant):
        functions = [lambda x: x + constant, lambda x: x - constant]
        for _ in range(40):
            functions.append(lambda x, first=functions[-1], second=functions[-2]: first(x) + second(x))
        return functions[-1]

    assert fingerprint.fingerprint(function(1)) == fingerprint.fingerprint(function(1))
    assert fingerprint.fingerprint(function(1)) != fingerprint.fingerprint(function(2))


def test_installed_packages_are_identified_by_name_and_version():
    assert fingerprint.fingerprint(pytest.approx) == f"{pytest.approx.__module__}.approx {pytest.__version__}"
    assert fingerprint.fingerprint(KMeans) == f"sklearn.cluster._kmeans.KMeans {sklearn.__version__}"
    assert fingerprint.fingerprint(Fraction) == "fractions.Fraction"


@pytest.mark.usefixtures("without_report")
def test_other_versions_are_warned_of_and_recorded(tmp_path, monkeypatch):
    small_run(tmp_path / "run")
    now = Comparison.load(tmp_path / "run").config.versions
    monkeypatch.setattr("interpreto.attributions.provenance.versions", lambda: {**now, "torch": "0.0.1"})
    with pytest.warns(
        UserWarning, match=f"torch {now['torch'].replace('+', '.')} then and 0.0.1 now".replace(".", r"\.")
    ):
        small_run(tmp_path / "run")
    asked = Comparison.load(tmp_path / "run").config
    assert asked.versions["torch"] == "0.0.1"
    assert asked.earlier_versions == [now]


def test_results_that_do_not_agree_are_not_written(tmp_path):
    (output,) = RandomScores(*text_model("bert"))(TEXTS[0])
    from dataclasses import replace

    with pytest.raises(ValueError, match="elements do not fit"):
        replace(output, elements=["one"]).save(tmp_path / "result")
    assert not list(tmp_path.iterdir())
