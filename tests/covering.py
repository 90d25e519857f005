"""Selects combinations of parameters: pairwise coverings instead of full products.

Within a file, every test function runs with every value of each of its parameters. Every pair of values of two
parameters (such as a method and a modality) runs in at least one function, if several functions of the file share the
two parameters. If only one or two do, as for products of methods and architectures, a third of the pairs run.
`make test-all` runs all combinations.
"""

import zlib
from itertools import combinations

FEW = 2
"""If at most this many test functions share two parameters, only a third of the pairs of values run."""


def factors(item):
    """The factors of a test: its function, and the values of its parameters."""
    call = getattr(item, "callspec", None)
    values = [] if call is None else [(name, _named(call.params[name], call.indices[name])) for name in call.params]
    return [("", item.originalname), *sorted(values)]


def _named(value, index):
    """A name that is equal for equal parameters of all tests of a file."""
    name = getattr(value, "__qualname__", repr(value))
    return str(index) if " at 0x" in name or "<" in name else name[:100]


def pairs(item):
    """The pairs that a test covers; a test without parameters covers itself."""
    named = factors(item)
    return set(combinations(named, 2)) or {(("", item.nodeid),)}


def _names(pair):
    return tuple(name for name, _ in pair) if isinstance(pair[0], tuple) else pair


def covering(items):
    """A greedily chosen subset of the tests of one file that covers all pairs that need covering."""
    left = {item: pairs(item) for item in items}
    needed = set().union(*left.values())
    laws = {}
    for item, covered in left.items():
        for pair in covered:
            laws.setdefault(_names(pair), set()).add(item.originalname)
    needed = {p for p in needed if p[0][0] == "" or len(laws[_names(p)]) > FEW or zlib.crc32(repr(p).encode()) % 3 == 0}
    kept = []
    while needed:
        # Ties are broken by a checksum, so that every machine selects the same tests and no parameter is preferred.
        best = max(left, key=lambda item: (len(left[item] & needed), zlib.crc32(item.nodeid.encode())))
        kept.append(best)
        needed -= left.pop(best)
    chosen = set(kept)
    return [item for item in items if item in chosen]
