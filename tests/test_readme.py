"""The README's examples run unchanged."""

import re
from pathlib import Path

import pytest

import interpreto

README = (Path(interpreto.__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], "README.md", "exec"), {})
    assert list((tmp_path / "out").iterdir())


def test_there_are_examples_for_texts_images_generated_texts_prompts_and_comparisons():
    assert len(BLOCKS) == 5


def test_all_methods_are_in_the_table():
    for method in interpreto.METHODS:
        assert f"`{method.__name__}`" in README
