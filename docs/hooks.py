"""What happens when the docs are built: a page per method from its docstring, and pages whose code is executed."""

import contextlib
import io
import os
import re
import tempfile
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from interpreto.cli.arguments import NAMES

FORMULA = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.S)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
BLOCK = re.compile(r"^```python exec\n(.*?)^```\n", re.M | re.S)


def on_config(config):
    """Put every method's page below the index of methods."""
    pages = [{method.__name__: f"methods/{name}.md"} for name, method in NAMES.items()]
    for entry in config["nav"]:
        if "Methods" in entry:
            entry["Methods"] = ["methods/index.md", *pages]
    return config


def on_files(files, config):
    """Add a page for every method, and an index of them."""
    kept = list(files)
    rows = ["# Methods", "", "| method | on the command line | description |", "|---|---|---|"]
    for name, method in NAMES.items():
        summary = method.__doc__.splitlines()[0]
        rows.append(f"| [{method.__name__}]({name}.md) | `{name}` | {summary} |")
        page = f"::: interpreto.{method.__name__}\n    options:\n      heading_level: 1\n"
        page += "\nOptions that all methods share are on the [reference page](../reference.md).\n"
        kept.append(File.generated(config, f"methods/{name}.md", content=page))
    kept.append(File.generated(config, "methods/index.md", content="\n".join(rows) + "\n"))
    return Files(kept)


def on_page_markdown(markdown, page, config, files):
    """Run a page's blocks marked `python exec` one after the other; show what they print, keep what they draw."""
    space = {"__name__": "__docs__"}

    def execute(match):
        code, printed = match.group(1), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page.file.src_path, "exec"), space)
        shown = f"```python\n{code}```\n"
        return shown + (f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else "")

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            executed = BLOCK.sub(execute, markdown)
            for path in sorted(Path(folder).glob("*.*")):
                files.append(File.generated(config, f"assets/{path.name}", content=path.read_bytes()))
        finally:
            os.chdir(before)
    return executed


def on_page_content(html, page, config, files):
    """Write formulas as MathML, which browsers show by themselves: no script, no network."""
    html = FORMULA.sub(lambda match: convert(unescape(match.group(1)), display="block"), html)
    return INLINE.sub(lambda match: convert(unescape(match.group(1))), html)
