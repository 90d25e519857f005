"""The interactive HTML in a real browser, by mouse and by keyboard."""

import copy
import shutil
from itertools import pairwise

import pytest
import torch
from playwright.sync_api import sync_playwright

from interpreto import Occlusion, plot_attributions
from tests.causal_lms import causal_lm
from tests.conftest import loaded
from tests.visualizations.test_generation_page import HOSTILE, output

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

PAINTED = "all => all.map(e => e.style.background !== '')"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, path, content, **options):
    """The page in a tab, with its errors and network requests."""
    path.write_text(content, encoding="utf-8")
    tab = browser.new_page(**options)
    troubles = []
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("console", lambda message: troubles.append(message.text))
    tab.on("request", lambda request: troubles.append(request.url) if request.url != path.as_uri() else None)
    tab.goto(path.as_uri())
    return tab, troubles


def test_hovering_highlights_units_under_every_method(browser, tmp_path):
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions({"A": output(), "B": output()}))
    units = tab.locator("[data-u]")
    # The first target is selected initially.
    assert units.evaluate_all(PAINTED) == [True, True, True, True, False, False] * 2
    tab.locator(".generation").first.locator("[data-t='0']").hover()
    assert units.evaluate_all(PAINTED) == [True, True, True, True, False, False] * 2
    assert "score 1.5" in tab.locator(".hint").last.inner_text()
    tab.locator(".generation").first.locator("[data-t='1']").hover()
    assert units.evaluate_all(PAINTED) == [True, True, True, True, True, False] * 2
    tab.mouse.move(0, 0)
    assert units.evaluate_all(PAINTED) == [True, True, True, True, False, False] * 2
    # The unit with the largest magnitude has the strongest colour: red for positive, blue for negative.
    tab.locator(".generation").last.locator("[data-t='0']").hover()
    colours = units.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    red, blue = (tuple(map(int, colours[unit][4:-1].split(","))) for unit in (3, 1))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert sum(red) < sum(blue)
    assert troubles == []
    tab.close()


def test_a_click_selects_a_unit_and_escape_deselects_it(browser, tmp_path):
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions(output()))
    target, units = tab.locator("[data-t='1']"), tab.locator("[data-u]")
    target.click()
    tab.mouse.move(0, 0)
    assert target.get_attribute("aria-pressed") == "true"
    assert units.evaluate_all(PAINTED) == [True] * 5 + [False]
    tab.keyboard.press("Escape")
    assert target.get_attribute("aria-pressed") == "false"
    assert units.evaluate_all(PAINTED) == [True, True, True, True, False, False]
    assert troubles == []
    tab.close()


def test_a_tap_is_enough(browser, tmp_path):
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions(output()), has_touch=True)
    tab.locator("[data-t='1']").tap()
    assert tab.locator("[data-u]").evaluate_all(PAINTED) == [True] * 5 + [False]
    assert troubles == []
    tab.close()


def test_the_keyboard_steps_through_the_units(browser, tmp_path):
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions(output()))
    chosen = "all => all.map(e => e.classList.contains('chosen'))"
    targets = tab.locator("[data-t]")
    tab.keyboard.press("Tab")
    assert targets.evaluate_all(chosen) == [True, False]
    tab.keyboard.press("ArrowRight")
    assert targets.evaluate_all(chosen) == [False, True]
    tab.keyboard.press("ArrowRight")
    assert targets.evaluate_all(chosen) == [True, False]
    tab.keyboard.press("Enter")
    assert "pinned" in tab.locator(".hint").inner_text()
    assert troubles == []
    tab.close()


def test_hostile_units_are_escaped(browser, tmp_path):
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions({"A": output(), "<img src=x>": output()}))
    shown = tab.locator(".generation").first.locator(".text").evaluate("e => e.textContent")
    assert shown == "".join(HOSTILE)
    assert tab.locator("img, main b").count() == 0
    assert tab.locator("h3").last.inner_text() == "<img src=x>"
    assert troubles == []
    tab.close()


def test_without_scripts_it_is_a_table(browser, tmp_path):
    tab, _ = opened(browser, tmp_path / "page.html", plot_attributions(output()), java_script_enabled=False)
    assert tab.locator("table").is_visible()
    assert tab.locator("tbody tr").count() == len(HOSTILE)
    tab.close()


def test_a_story_of_the_zoo(browser, tmp_path):
    results = Occlusion(*loaded("stories-gpt2"), inference_mode="softmax")("Ben takes the cup along. Later")
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions(results))
    assert tab.locator("[data-t]").all_inner_texts() == ["Ben", "puts", "down", "the", "cup", "."]
    tab.locator("[data-t='4']").hover()
    strength = "all => all.map(e => Math.abs(parseFloat(e.title) || 0))"
    strongest = int(torch.tensor(tab.locator("[data-u]").evaluate_all(strength)).argmax())
    assert tab.locator(f"[data-u='{strongest}']").inner_text() == "cup"
    assert troubles == []
    tab.close()


def test_several_pages_and_one_shown_again_share_a_document(browser, tmp_path):
    """As in a notebook, where a cell may be run again."""
    one = plot_attributions(output())
    again = "<script>" + one.split("<script>")[-1].split("</script>")[0] + "</script>"
    tab, troubles = opened(browser, tmp_path / "page.html", one + plot_attributions(output()) + again)
    assert troubles == []
    sections = tab.locator("section.generations")
    assert sections.count() == 2
    for number in range(2):
        section = sections.nth(number)
        assert section.locator("[data-u]").evaluate_all(PAINTED) == [True, True, True, True, False, False]
        section.locator("[data-t='1']").hover()
        assert section.locator("[data-u]").evaluate_all(PAINTED) == [True, True, True, True, True, False]
        # A second set of listeners would undo a click.
        section.locator("[data-t='1']").click()
        assert section.locator("[data-t='1']").get_attribute("aria-pressed") == "true"
    tab.close()


def test_turns_of_a_chat_are_apart(browser, tmp_path):
    model, words = causal_lm("gpt2")
    words = copy.deepcopy(words)
    words.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
    chat = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Was the film good?"}]
    (result,) = Occlusion(model, words)(chat, " Very good.")
    tab, troubles = opened(browser, tmp_path / "page.html", plot_attributions(result))
    assert troubles == []
    assert tab.locator("h2").inner_text() == "Was the film good?"
    turns = tab.locator(".turn")
    assert [text.split("\n", 1) for text in turns.all_inner_texts()] == [
        ["system", "You are kind."], ["user", "Was the film good?"], ["assistant", " Very good."],
    ]  # fmt: skip
    boxes = [turns.nth(number).bounding_box() for number in range(3)]
    assert all(one["y"] + one["height"] <= other["y"] for one, other in pairwise(boxes))
    tab.close()
