"""How long texts are cut into words and sentences: the time per character must not grow with the length.

Each text repeats a piece that is hard to cut: no white space, no stop, abbreviations, one stop after another, marks
that belong to what they follow. The table has seconds for each length and the ratio of the longest to the shortest,
which is 16 where the time is linear.

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
CUTS = {"words": words, "sentences": sentences, "clauses": clauses, "characters": character_ends}


def seconds(cut, text: str) -> float:
    """The median time of a few runs."""
    taken = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        cut(text)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main() -> None:
    """Print a table for every way to cut."""
    for name, cut in CUTS.items():
        print(f"| {name} | {' | '.join(f'{length:,}' for length in LENGTHS)} | ratio |")
        print(f"|---|{'---|' * (len(LENGTHS) + 1)}")
        for kind, piece in TEXTS.items():
            taken = [seconds(cut, (piece * (length // len(piece) + 1))[:length]) for length in LENGTHS]
            print(f"| {kind} | {' | '.join(f'{one:.3f}' for one in taken)} | {taken[-1] / taken[0]:.0f} |")
        print()


if __name__ == "__main__":
    main()
