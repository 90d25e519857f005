"""A KeyboardInterrupt at every line of the package, in one call of each family of methods: how many leave changes."""

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.tables import Table
from tests.interrupts import StateSnapshot, interrupted_at, lines_of
from tests.test_threads import FAMILIES, all_close, attributions_of


def rows() -> Iterator[tuple[Any, ...]]:
    for name, build in FAMILIES.items():
        begin = time.perf_counter()
        model, explainer, inputs, target = build()

        def call(explainer=explainer, one=inputs[0], target=target):
            return attributions_of(explainer, one, target)

        expected, snapshot = call(), StateSnapshot(model)
        places = lines_of(call)
        raised, broken = 0, []
        for place in places:
            raised += interrupted_at(call, place)
            if snapshot.changes():
                broken.append((place, snapshot.changes()))
                snapshot = StateSnapshot(model)
        right = all_close(call(), expected)
        seconds = time.perf_counter() - begin
        yield name, len(places), raised, len(broken), right, seconds
        for place, what in broken:
            print(place, what)


COLUMNS = {
    "family": "",
    "lines": "d",
    "interrupted": "d",
    "state changed": "d",
    "right afterwards": "",
    "time, s": ".0f",
}

if __name__ == "__main__":
    Table("interrupts", COLUMNS, rows()).run()
