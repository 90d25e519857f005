"""Which combinations of parameters are run: coverings of pairs instead of full products.

Of the tests of a file, every law (a test function) runs with every value of each of its parameters. Pairs of values of two
parameters (a method on a modality) run in at least one law, where a file has several; where it has one or two, which run on a
product of methods and architectures, a third of the pairs do. The rest is left to `make test-all`.
"""

import zlib
from itertools import combinations

FEW = 2
"""Of parameters that so many laws have together, or fewer, a third of the pairs of values is run."""


def factors(item):
    """What a test is made of: its function, and the values of its parameters."""
    call = getattr(item, "callspec", None)
    values = [] if call is None else [(name, _named(call.params[name], call.indices[name])) for name in call.params]
    return [("", item.originalname), *sorted(values)]


def _named(value, index):
    """A value that is the same for the same parameter in every test of a file."""
    name = getattr(value, "__qualname__", repr(value))
    return str(index) if " at 0x" in name or "<" in name else name[:100]


def pairs(item):
    """The pairs that a test covers; for a test without parameters itself."""
    named = factors(item)
    return set(combinations(named, 2)) or {(("", item.nodeid),)}


def _names(pair):
    return tuple(name for name, _ in pair) if isinstance(pair[0], tuple) else pair


def covering(items):
    """Tests of one file that cover every pair that any of them covers, greedily few."""
    left = {item: pairs(item) for item in items}
    needed = set().union(*left.values())
    laws = {}
    for item, covered in left.items():
        for pair in covered:
            laws.setdefault(_names(pair), set()).add(item.originalname)
    needed = {p for p in needed if p[0][0] == "" or len(laws[_names(p)]) > FEW or zlib.crc32(repr(p).encode()) % 3 == 0}
    kept = []
    while needed:
        # Ties fall where a checksum says, so that the same tests are run everywhere and all parameters take turns.
        best = max(left, key=lambda item: (len(left[item] & needed), zlib.crc32(item.nodeid.encode())))
        kept.append(best)
        needed -= left.pop(best)
    chosen = set(kept)
    return [item for item in items if item in chosen]
