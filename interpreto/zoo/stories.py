"""Generated stories in which a person takes an object and puts it down at the end: an early word decides a late one."""

from dataclasses import dataclass

import numpy as np

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas")
OBJECTS = (
    "lamp", "ball", "book", "cup", "drum", "flag", "kite", "ladder",
    "mirror", "pillow", "rope", "basket", "stone", "hammer", "violin", "map",
)  # fmt: skip
HOLDING = (
    "{name} picks up the {thing}.",
    "{name} takes the {thing} along.",
    "{name} carries the {thing} outside.",
    "{name} finds the {thing} and keeps it.",
    "{name} holds the {thing} with both hands.",
)
STANDING = (
    "The {thing} lies on the table.",
    "There is the {thing} in the corner.",
    "Nobody wants the {thing}.",
    "The {thing} stands near the door.",
    "The children talk about the {thing}.",
)
NEUTRAL = (
    "It is a cold {day}.", "The sun is high above the {place}.", "A dog sleeps in the grass.",
    "The road leads to the {place}.", "Two birds sit on the roof.", "It begins to rain over the {place}.",
    "The shops are closed on {day}.", "A train passes by.", "The bells ring in the {place}.",
)  # fmt: skip
ENDINGS = ("At last", "In the evening", "Later", "After a while", "At the {place}", "On the way home")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PLACES = ("garden", "village", "forest", "harbour", "market", "station")


@dataclass(frozen=True)
class Story:
    """A story: its text up to the decided word, that word, and the end."""

    prompt: str
    thing: str
    end: str = "."

    @property
    def text(self) -> str:
        """The whole story."""
        return f"{self.prompt} {self.thing}{self.end}"


def story(rng: np.random.Generator) -> Story:
    """One person takes one object; a second object is mentioned, and one or two sentences mention neither.

    Both objects occur once in the prompt, in sentences in random order.
    """
    name = rng.choice(NAMES)
    # The second object is a distractor: that an object occurs in the prompt does not decide the answer.
    thing, other = rng.choice(OBJECTS, 2, replace=False)
    sentences = [
        str(rng.choice(HOLDING)).format(name=name, thing=thing),
        str(rng.choice(STANDING)).format(thing=other),
        *(_fill(str(sentence), rng) for sentence in rng.choice(NEUTRAL, rng.integers(1, 3), replace=False)),
    ]
    ending = _fill(str(rng.choice(ENDINGS)), rng)
    return Story(f"{' '.join(rng.permutation(sentences))} {ending} {name} puts down the", str(thing))


def _fill(sentence: str, rng: np.random.Generator) -> str:
    return sentence.format(day=rng.choice(DAYS), place=rng.choice(PLACES))
