"""Which combinations of parameters are run: coverings of pairs instead of full products.

Of the tests of a file, every law (a test function) runs with every value of each of its parameters, and every pair of values
of two parameters (a method on an architecture, a method on a modality) runs in at least one law. What goes wrong for a law, a
method or a pair of the two is found; what needs three of them at once is left to `make test-all`.
"""

import zlib
from itertools import combinations


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
    return set(combinations(named, 2)) or {(item.nodeid,)}


def covering(items):
    """Tests of one file that cover every pair that any of them covers, greedily few."""
    left = {item: pairs(item) for item in items}
    needed = set().union(*left.values())
    kept = []
    while needed:
        # Ties fall where a checksum says, so that the same tests are run everywhere and all parameters take turns.
        best = max(left, key=lambda item: (len(left[item] & needed), zlib.crc32(item.nodeid.encode())))
        kept.append(best)
        needed -= left.pop(best)
    chosen = set(kept)
    return [item for item in items if item in chosen]
