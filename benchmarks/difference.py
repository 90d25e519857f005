"""Two folders of results side by side, for example those of two commits.

`python -m benchmarks.difference OLD_FOLDER NEW_FOLDER` prints every table that is in both. Times have the old and the
new value and their ratio, new / old; other cells are printed once if they are equal, else as "old -> new". Times of
separate runs also differ by the drift of the machine, which ratios measured in one process do not.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import header, joined, shown


def tables(folder: Path) -> dict[str, Any]:
    """The tables of a folder, by name."""
    contents = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {content["name"]: content for content in contents}


def by_key(table: Any) -> dict[tuple[Any, ...], Any]:
    """The rows by the cells that say what they are about; repeated ones are numbered."""
    names, seen, rows = list(table["columns"])[: table["n_keys"]], Counter(), {}
    for row in table["rows"]:
        key = tuple(row[name] for name in names)
        seen[key] += 1
        rows[(*key, seen[key])] = row
    return rows


def is_time(column: str) -> bool:
    return column.endswith((", s", ", ms"))


def measured_with(table: Any) -> str:
    """Commit and environment of a table."""
    commit = (table["commit"] or "no commit")[:10] + (" with changes" if table["uncommitted_changes"] else "")
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    machine = f"{table['cpu']}, {table['gpu'] or 'no GPU'}, threads {table['threads']}"
    return f"{commit}, {table['measured']}, {machine}, {versions}"


def compared(old: Any, new: Any) -> Iterator[str]:
    """The lines of the comparison of one table."""
    keys, measured = list(new["columns"])[: new["n_keys"]], list(new["columns"].items())[new["n_keys"] :]
    names = [[f"old {name}", f"new {name}", "new / old"] if is_time(name) else [name] for name, _ in measured]
    yield header([*keys, *(name for group in names for name in group)])
    old_rows, new_rows = by_key(old), by_key(new)
    # In the new order; rows that only the old table has come last.
    for key in dict.fromkeys([*new_rows, *old_rows]):
        before, after = old_rows.get(key, {}), new_rows.get(key, {})
        cells = [str(cell) for cell in key[:-1]]
        for name, spec in measured:
            pair = before.get(name), after.get(name)
            one, other = (shown(cell, spec) for cell in pair)
            if is_time(name):
                cells += [one, other, f"{pair[1] / pair[0]:.3f}" if pair[0] and pair[1] is not None else "-"]
            else:
                cells.append(other if one == other else f"{one} -> {other}")
        yield joined(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    old, new = tables(arguments.old), tables(arguments.new)
    names = [name for name in new if name in old]
    if not names:
        parser.error(f"No table is in both {arguments.old} and {arguments.new}.")
    for name in names:
        print(f"## {name}\n\nold: {measured_with(old[name])}\nnew: {measured_with(new[name])}\n")
        print("\n".join(compared(old[name], new[name])), end="\n\n")
    for folder, alone in ((arguments.old, old.keys() - new), (arguments.new, new.keys() - old)):
        if alone:
            print(f"Only in {folder}: {', '.join(sorted(alone))}")


if __name__ == "__main__":
    main()
