"""What happens when the docs are built: a page per method from its docstring, and pages whose code is executed."""

import contextlib
import io
import os
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

from interpreto.cli import NAMES

DOCS = Path(__file__).parent
BLOCK = re.compile(r"^```python exec\n(.*?)^```\n", re.M | re.S)


def on_files(files, config):
    """A page for every method, and an index of them."""
    kept = list(files)
    rows = ["# Methods", "", "| method | on the command line | what it says |", "|---|---|---|"]
    for name, method in NAMES.items():
        summary = method.__doc__.splitlines()[0]
        rows.append(f"| [{method.__name__}]({name}.md) | `{name}` | {summary} |")
        page = (
            f"# {method.__name__}\n\n::: interpreto.{method.__name__}\n    options:\n      show_root_heading: false\n"
        )
        page += "\nOptions that all methods share are on the [reference page](../reference.md).\n"
        kept.append(File.generated(config, f"methods/{name}.md", content=page))
    kept.append(File.generated(config, "methods/index.md", content="\n".join(rows) + "\n"))
    return Files(kept)


def on_page_markdown(markdown, page, config, files):
    """Run the blocks marked `python exec` of a page one after the other and show what they print below them."""
    space = {"__name__": "__docs__"}
    folder = Path(config["site_dir"]) / "assets"
    folder.mkdir(parents=True, exist_ok=True)

    def execute(match):
        code, printed = match.group(1), io.StringIO()
        before = os.getcwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, page.file.src_path, "exec"), space)
        finally:
            os.chdir(before)
        shown = f"```python\n{code}```\n"
        return shown + (f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else "")

    return BLOCK.sub(execute, markdown)
