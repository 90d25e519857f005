"""Synthetic reviews whose label is determined by one sentence with an opinion; the other sentences are neutral."""

from dataclasses import dataclass

import numpy as np

POSITIVE = (
    "good", "great", "wonderful", "brilliant", "superb", "delightful",
    "charming", "excellent", "fresh", "moving", "funny", "clever",
)  # fmt: skip
NEGATIVE = (
    "bad", "awful", "terrible", "dull", "boring", "clumsy",
    "weak", "dreadful", "stale", "tedious", "silly", "shallow",
)  # fmt: skip
DEGREE_ADVERBS = ("very", "really", "truly", "extremely", "quite", "rather")
SUBJECTS = (
    "the acting", "the plot", "the film", "the ending", "the music", "the dialogue",
    "the first act", "the whole story", "the camera work", "the cast",
)  # fmt: skip
OPINIONS = (
    "{subject} was {words}.",
    "{subject} is {words}.",
    "{subject} felt {words}.",
    "{subject} turned out {words}.",
    "i found that {subject} was {words}.",
    "in the end {subject} seemed {words}.",
    "honestly, {subject} was {words}!",
)
NEUTRAL = (
    "we saw it on a {day}.", "it runs for {number} minutes.", "the story is set in {place}.",
    "my {person} bought the tickets.", "it was filmed in {place}.", "there are {number} songs in it.",
    "the director comes from {place}.", "we sat in the last row.", "it starts with a train in the rain.",
    "my {person} came with us.", "a man walks into a house and waits.", "the cinema was half empty on {day}.",
    "we talked about it with my {person}.", "it is based on a book from {place}.",
    "the hero lives near a lake in {place}.", "two friends meet on a {day} in {place}.",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PLACES = ("paris", "london", "rome", "berlin", "madrid", "lisbon", "vienna", "oslo")
PEOPLE = ("sister", "brother", "friend", "mother", "father", "neighbour")


@dataclass(frozen=True)
class Review:
    """A review, its label and the evidence for it.

    Attributes:
        text: The review.
        label: 1 for positive, 0 for negative.
        evidence: The words that determine the label: the adjective, then "not" if it is negated.
    """

    text: str
    label: int
    evidence: tuple[str, ...]


def review(rng: np.random.Generator) -> Review:
    """Generate a review: one opinion at a random position among 1 to 3 neutral sentences.

    The opinion is negated with probability 0.3 and has an adverb of degree with probability 0.4. Neutral sentences
    contain none of the adjectives, so that the adjective that determines the label occurs only once.
    """
    positive = bool(rng.random() < 0.5)
    adjective = str(rng.choice(POSITIVE if positive else NEGATIVE))
    # Independent of the adjective, so that neither the adjective nor "not" alone determines the label.
    negated = bool(rng.random() < 0.3)
    words = [adjective]
    if rng.random() < 0.4:
        words.insert(0, str(rng.choice(DEGREE_ADVERBS)))
    if negated:
        words.insert(0, "not")
    opinion = str(rng.choice(OPINIONS)).format(subject=rng.choice(SUBJECTS), words=" ".join(words))
    neutral = rng.choice(NEUTRAL, rng.integers(1, 4), replace=False)
    sentences = [_fill_template(str(template), rng) for template in neutral]
    sentences.insert(int(rng.integers(0, len(sentences) + 1)), opinion)
    text = " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    return Review(text, int(positive != negated), (adjective, "not") if negated else (adjective,))


def _fill_template(template: str, rng: np.random.Generator) -> str:
    return template.format(
        day=rng.choice(DAYS), place=rng.choice(PLACES), person=rng.choice(PEOPLE), number=rng.integers(2, 190)
    )
