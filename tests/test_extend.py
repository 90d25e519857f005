"""The classes of the page on extending take part in comparisons, figures, files and the command line."""

import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import interpreto
from interpreto import AttributionOutput, Deletion, RelevanceMass, cli, compare, plot_attributions, zoo
from interpreto.errors import OptionError

PAGE = (Path(interpreto.__file__).parents[1] / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```python exec\n(.*?)^```", PAGE, re.M | re.S)
# The blocks that define a method, a metric and a granularity.
MODULE = "\n".join(block for block in BLOCKS if "class " in block).replace("print(LargestShare", "# print(LargestShare")


@pytest.fixture
def extension(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import my_methods

    yield my_methods
    monkeypatch.delitem(sys.modules, "my_methods")


def test_outside_classes_explain_save_plot_and_compare(extension, tmp_path):
    model, processor = zoo.load("shapes-vit")
    example = zoo.samples("shapes-vit", 1)[0]
    segments = extension.Superpixels(12)
    (output,) = extension.KeepOne(model, processor, granularity=segments)(example.input)
    assert output.attributions.ndim == 2
    assert output.n_evaluations == output.attributions.shape[1] + 1
    # Every pixel of the map has the score of its unit.
    for unit, score in enumerate(output.attributions[0].tolist()):
        assert (output.heatmap(interpolation="nearest")[0][output.unit_map == unit] == score).all()
    loaded = AttributionOutput.load(output.save(tmp_path / "saved"))
    assert loaded.unit_map.equal(output.unit_map)
    assert plot_attributions(output, tmp_path / "map.png") is not None
    assert output.top_mask(30.0).any()
    # The mask of a single unit has all attributions if no other unit has any.
    mask = (output.unit_map == 0).numpy()
    only = AttributionOutput(
        **{**vars(output), "attributions": (output.attributions * 0).index_fill(1, torch.tensor([0]), 1.0)}
    )
    assert float(RelevanceMass().evaluate(only, mask).mean) == pytest.approx(1.0, abs=1e-6)
    assert Deletion(model, processor).evaluate(output).values[0].isfinite().all()
    comparison = compare(
        model, processor, inputs=[example.input], methods=[extension.KeepOne, "occlusion"],
        metrics=[extension.LargestShare], granularity=segments, show_progress=False,
    )  # fmt: skip
    assert "KeepOne" in str(comparison)
    assert 0 < float(comparison.values("LargestShare")["KeepOne"]) <= 1


def test_outside_classes_are_named_on_the_command_line(extension, tmp_path):
    zoo.samples("shapes-vit", 1)[0].input.save(tmp_path / "photo.png")
    shown = CliRunner().invoke(
        cli.app,
        ["explain", "photo.png", "--model", "zoo:shapes-vit", "--method", "my_methods:KeepOne",
         "--granularity", "my_methods:Superpixels"],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "KeepOne" in shown.output
    shown = CliRunner().invoke(
        cli.app,
        ["compare", "--model", "zoo:reviews-bert", "--samples", "1", "--methods", "my_methods:KeepOne,occlusion",
         "--metrics", "my_methods:LargestShare"],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "LargestShare" in shown.output
    shown = CliRunner().invoke(
        cli.app, ["explain", "x", "--model", "zoo:reviews-bert", "--method", "my_methods:Absent"]
    )
    assert "cannot be imported" in str(shown.exception)


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        (lambda source: source, "no_option"),
        (lambda source: "from __future__ import annotations\n" + source, "no_option"),
        (lambda source: source.replace("**options: Unpack[Options]", "**options"), "no_option"),
        (lambda source: source.replace(", **options: Unpack[Options]", "").replace(", options)", ", {})"), ""),
    ],
    ids=["as on the page", "annotations are strings", "options without annotation", "no options"],
)
def test_constructors_of_outside_methods_may_annotate_their_options_or_not(change, unknown):
    source = change(MODULE)
    assert unknown or "**options" not in source
    namespace = {"__name__": "my_methods"}
    exec(compile(source, "my_methods.py", "exec", dont_inherit=True), namespace)
    model, processor = zoo.load("reviews-bert")
    options = {"show_progress": False} if unknown else {}
    (output,) = namespace["KeepOne"](model, processor, **options)("the plot was slow")
    assert output.attributions.ndim == 2
    if unknown:
        with pytest.raises(OptionError, match=unknown):
            namespace["KeepOne"](model, processor, **{unknown: 1})
