"""What happens when the docs are built: a page per method from its docstring, and pages whose code is executed.

`python docs/hooks.py PAGE FOLDER` executes the code of one page.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from interpreto.cli.arguments import NAMES

FORMULA = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.S)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
BLOCK = re.compile(r"^```python exec\n(.*?)^```\n", re.M | re.S)
PRINTED = "printed.json"
"""The file with the texts that the blocks of a page print."""
N_PROCESSES = 2
EXECUTED: dict[str, Future] = {}
"""The folder with the outputs of each page that has code, as soon as it has run."""


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
    _execute_pages(kept)
    return Files(kept)


def _execute_pages(files):
    """Start to run the code of all pages, several pages at a time."""
    codes = {
        file.src_path: "".join(BLOCK.findall(file.content_string)) for file in files if file.is_documentation_page()
    }
    executor = ThreadPoolExecutor(N_PROCESSES)
    # Pages with comparisons take longest, and start first.
    for path in sorted((path for path in codes if codes[path]), key=lambda path: -codes[path].count("compare(")):
        EXECUTED[path] = executor.submit(_execute, Path("docs") / path)
    executor.shutdown(wait=False)


def _execute(page):
    folder = tempfile.TemporaryDirectory()
    # One thread each: processes that share the cores take longer with more.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, page.resolve(), folder.name], check=True, env=environment)
    return folder


def on_page_markdown(markdown, page, config, files):
    """Show what the blocks marked `python exec` print, and add the files that they draw."""
    if page.file.src_path not in EXECUTED:
        return markdown
    with EXECUTED[page.file.src_path].result() as folder:
        printed = iter(json.loads(Path(folder, PRINTED).read_text()))
        for path in sorted(Path(folder).glob("*.*")):
            if path.name != PRINTED:
                files.append(File.generated(config, f"assets/{path.name}", content=path.read_bytes()))

    def shown(match):
        text = next(printed)
        return f"```python\n{match.group(1)}```\n" + (f"\n```text\n{text}```\n" if text else "")

    return BLOCK.sub(shown, markdown)


def on_page_content(html, page, config, files):
    """Write formulas as MathML, which browsers show by themselves: no script, no network."""
    html = FORMULA.sub(lambda match: convert(unescape(match.group(1)), display="block"), html)
    return INLINE.sub(lambda match: convert(unescape(match.group(1))), html)


def execute(page, folder):
    """Run a page's blocks marked `python exec` one after the other; write what they print and draw to a folder."""
    namespace, printed = {"__name__": "__docs__"}, []
    blocks = BLOCK.findall(Path(page).read_text())
    os.chdir(folder)
    for code in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile(code, page, "exec"), namespace)
        printed.append(stream.getvalue())
    Path(PRINTED).write_text(json.dumps(printed))


if __name__ == "__main__":
    execute(*sys.argv[1:])
