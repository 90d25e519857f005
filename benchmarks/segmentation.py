"""Time of segmenting texts into words, sentences and clauses: it must be linear in the length.

Each text repeats a piece that is hard to segment: no white space, no full stop, abbreviations, many full stops in a
row, combining marks. The table has seconds for each length and the ratio of the longest to the shortest, which is 16
for linear time.

Run `python -m benchmarks.segmentation` from the root of the repository.
"""

import statistics
import time

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


def main() -> None:
    """Print a table for every segmenter."""
    for name, segment in SEGMENTERS.items():
        print(f"| {name} | {' | '.join(f'{length:,}' for length in LENGTHS)} | ratio |")
        print(f"|---|{'---|' * (len(LENGTHS) + 1)}")
        for kind, piece in TEXTS.items():
            times = [seconds(segment, (piece * (length // len(piece) + 1))[:length]) for length in LENGTHS]
            print(f"| {kind} | {' | '.join(f'{value:.3f}' for value in times)} | {times[-1] / times[0]:.0f} |")
        print()


if __name__ == "__main__":
    main()
