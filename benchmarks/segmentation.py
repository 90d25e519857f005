"""Time of segmenting texts into words, sentences and clauses: it must be linear in the length.

Each text repeats a piece that is hard to segment: no white space, no full stop, abbreviations, many full stops in a
row, combining marks. The table has seconds for each length and the ratio of the longest to the shortest, which is 16
for linear time.

Run `python -m benchmarks.segmentation` from the root of the repository.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.tables import Table
from interpreto.attributions.granularity.segmentation import character_ends, clauses, sentences, words

LENGTHS = (25_000, 100_000, 400_000)
REPEATS = 3
TEXTS = {
    "plain": "The plot was weak, to be honest. I liked the music. ",
    "no white space": "a",
    "no stop": "word ",
    "stops alone": ". ",
    "dots": ".",
    "abbreviations": "Dr. A. B. No. 5 vs. e.g. Mr. ",
    "brackets": "((He said (so).) Then.) ",
    "numbers": "1. 2.5 3. 4, ",
    "Chinese": "我喜欢这部电影。",
    "Hindi": "मुझे यह फ़िल्म पसंद है। ",
    "accents": "Le café était fermé. ",
    "Thai": "ฉันชอบหนังเรื่องนี้",
    "marks": "e\u0301",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "lines": "a\n\n",
}
SEGMENTERS = {"words": words, "sentences": sentences, "clauses": clauses, "characters": character_ends}


def seconds(segment, text: str) -> float:
    """The median time of a few runs."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        segment(text)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def rows(segment) -> Iterator[tuple[Any, ...]]:
    """A row for every text."""
    for kind, piece in TEXTS.items():
        times = [seconds(segment, (piece * (length // len(piece) + 1))[:length]) for length in LENGTHS]
        yield kind, *times, times[-1] / times[0]


def main() -> None:
    """Print a table for every segmenter."""
    columns = {"text": "", **{f"{length:,} characters, s": ".3f" for length in LENGTHS}, "ratio": ".0f"}
    for name, segment in SEGMENTERS.items():
        Table(f"segmentation-{name}", columns, rows(segment)).run()


if __name__ == "__main__":
    main()
