"""The interactive HTML of a generated text: escaping, unchanged numbers, a table without scripts."""

import json
import re
from itertools import pairwise

import torch

from interpreto import AttributionOutput, plot_attributions
from interpreto.visualizations import generation_figure as matrix
from interpreto.visualizations.panels import build_panels

HOSTILE = ["</script><b>", "\"quotes'", " שלום", " 🙂", "\n<!--", " &amp;"]


def output(method="Occlusion"):
    scores = torch.tensor([[0.5, -1.0, 0.25, 2.0, torch.nan, torch.nan], [1.0, 0.0, -0.5, 0.1, 3.0, torch.nan]])
    return AttributionOutput(
        attributions=scores, elements=HOSTILE, targets=(4, 5), target_names=tuple(HOSTILE[4:]),
        scores=torch.tensor([1.5, -2.0]), task="text-generation", modality="text", granularity="word",
        raw_input=("".join(HOSTILE[:4]), "".join(HOSTILE[4:])), info={"method": method},
    )  # fmt: skip


def test_hostile_tokens_are_escaped():
    page = plot_attributions({"A": output(), "B <i>": output()})
    # The scripts are two blocks of numbers and the page's own, none from the texts.
    assert len(re.findall("<script", page)) == 3
    assert len(re.findall("</script>", page)) == 3
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<!--" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_numbers_reach_the_script_as_they_are():
    page = plot_attributions(output())
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    found = json.loads(data)
    assert found["scores"][0] == [0.5, -1.0, 0.25, 2.0, None, None]
    assert found["values"] == ["1.5", "-2"]
    assert re.findall(r'data-u="(\d)" class="target" data-t="(\d)"', page) == [("4", "0"), ("5", "1")]


def test_the_table_is_there_without_scripts():
    page = plot_attributions(output())
    table = page[page.index("<table>") : page.index("</table>")]
    assert table.count("<tr>") == 1 + len(HOSTILE)
    assert "+0.25" in table
    assert "nan" not in table
    assert "<details open>" in page


def test_targets_that_are_not_units_get_buttons():
    joint = output()
    page = plot_attributions(AttributionOutput(**{**vars(joint), "target_names": ("first", "second")}))
    assert page.count('class="target"') == 2
    assert "Explained:" in page


def test_the_figure_has_a_line_per_target_and_blanks_for_nan():
    figure = matrix.draw(build_panels({"A": output(), "B": output()}))
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in maps] == ["A", "B"]
    for axes in maps:
        shown = axes.images[0].get_array()
        assert shown.shape == (2, 6)
        assert shown.mask.tolist() == output().attributions.isnan().tolist()
        assert axes.images[0].norm.vmax == -axes.images[0].norm.vmin == 3
        assert axes.get_xticklabels()[4].get_text() == "<!--"


def test_long_texts_go_over_several_strips(tmp_path):
    many = 95
    scores = torch.arange(2.0 * many).reshape(2, many)
    long = AttributionOutput(
        **{**vars(output()), "attributions": scores, "elements": [f"w{unit}" for unit in range(many)]}
    )
    maps = [axes for axes in matrix.draw(build_panels(long)).axes if axes.images]
    assert [axes.images[0].get_array().shape[1] for axes in maps] == [40, 40, 15]
    assert maps[2].get_xticklabels()[-1].get_text() == "w94"
    boxes = [axes.get_position() for axes in maps]
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    plot_attributions(long, tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size > 1000
