"""Whether methods find the word that a real language model's answer depends on, for every score and removal.

`python -m benchmarks.real_language_model` explains prompts of five kinds with SmolLM2-135M-Instruct and prints, for
each method and setting, the share of prompts with the known word on top and among the top two. `--kinds`, `--methods`,
`--scores` and `--removals` choose among them.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.real_models import language_model
from interpreto import IntegratedGradients, KernelShap, Occlusion, Saliency

CAPITALS = {
    "Japan": "Tokyo",
    "France": "Paris",
    "Italy": "Rome",
    "Germany": "Berlin",
    "Spain": "Madrid",
    "Russia": "Moscow",
    "Greece": "Athens",
    "China": "Beijing",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Ireland": "Dublin",
    "Cuba": "Havana",
    "Sweden": "Stockholm",
}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "good": "bad",
    "black": "white",
    "left": "right",
    "fast": "slow",
    "light": "dark",
    "old": "new",
    "war": "peace",
    "positive": "negative",
    "true": "false",
    "high": "low",
    "strong": "weak",
    "male": "female",
    "rich": "poor",
}
LANGUAGES = {
    "Mexico": "Spanish",
    "Argentina": "Spanish",
    "Germany": "German",
    "Italy": "Italian",
    "Japan": "Japanese",
    "Russia": "Russian",
    "England": "English",
    "Greece": "Greek",
    "Brazil": "Portuguese",
    "France": "French",
}
FACTS = [
    "The name of the dog is Rex",
    "The password is banana",
    "Peter works as a pilot",
    "The train leaves at seven",
    "Anna's favourite colour is green",
    "The winner of the race was Thomas",
    "The treasure is hidden under the bridge",
    "Our teacher was born in Madrid",
    "The doctor drives a yellow taxi",
    "The meeting is on Thursday",
    "The queen gave the boy a mirror",
    "My neighbour plays the violin",
]
STORY = """The market opens early in the morning, long before the first bus arrives. Farmers unload boxes of apples,
onions and potatoes, and somebody always brews a pot of strong coffee. By eight o'clock the narrow lanes are full of
people with baskets, who compare prices, taste cheese and talk about the weather. A musician with an accordion sits
beside the fountain and plays the same three songs until noon. Children run between the stalls and are told, again
and again, not to touch the fish. When it rains, the traders pull long sheets of plastic over their tables and wait
under the arches of the old town hall. Nobody seems to mind. In the afternoon the crowd grows thin, and the last
bread is sold for half its price. Two men sweep the square with wide brooms, while pigeons look for crumbs around
their feet. The butcher counts his money twice, locks the door of his small shop and lights a pipe. Above the roofs
the clock strikes five, although it is a quarter past, because nobody has repaired it since the winter. Then the
lamps go on, one after the other, and the smell of soup comes out of the kitchen windows. A few students carry
chairs to the steps of the library and read until it is too dark to see the letters. Later the square belongs to the
cats. They walk along the walls, stop in front of the closed stalls and listen. In the night a cool wind comes down
from the hills and moves the signs above the doors. The baker is the first one to get up. He lights the oven, opens
the window a little and begins to knead the dough, as his father did, and his grandfather before him, on the same
wooden table."""


@dataclass(frozen=True)
class Question:
    """A prompt, the answer that the model gives, and the word that the answer depends on.

    Attributes:
        prompt: A text, or the messages of a chat.
        continuation: What follows; its last word is explained.
        reason: The word.
    """

    prompt: object
    continuation: str
    reason: str


def chat(question):
    return [{"role": "user", "content": question}]


def in_context():
    """A fact within a story of 300 words, whose beginning is repeated at the end."""
    sentences = STORY.replace("\n", " ").split(". ")
    for number, fact in enumerate(FACTS):
        begin, _, word = fact.rpartition(" ")
        place = 1 + number * len(sentences) // len(FACTS)
        yield Question(". ".join([*sentences[:place], fact, *sentences[place:]]) + f" {begin}", f" {word}", word)


KINDS = {
    "facts": [Question(f"The capital of {country} is", f" {city}", country) for country, city in CAPITALS.items()],
    "opposites": [Question(f"The opposite of {word} is", f" {other}", word) for word, other in OPPOSITES.items()],
    "languages": [
        Question(f"In {country}, people mostly speak", f" {language}", country)
        for country, language in LANGUAGES.items()
    ],
    "chats": [
        *(
            Question(chat(f"What is the capital of {country}?"), f"The capital is {city}", country)
            for country, city in CAPITALS.items()
        ),
        *(
            Question(chat(f"Which language is spoken in {country}?"), f"The official language is {language}", country)
            for country, language in LANGUAGES.items()
        ),
    ],
    "contexts": list(in_context()),
}
# The option by which each is told what takes the place of a word.
METHODS = {
    "Occlusion": (Occlusion, "removal"),
    "KernelShap": (partial(KernelShap, n_samples=64), "removal"),
    "IntegratedGradients": (IntegratedGradients, "baseline"),
    "Saliency": (Saliency, None),
}


def rank(output, reason):
    """How many words have a higher score for the last word of the continuation than the known one."""
    scores = output.attributions[-1].nan_to_num(-torch.inf)
    places = [n for n, word in enumerate(output.elements) if word.strip(" .,?!\"'\n").lower() == reason.lower()]
    best = max(float(scores[place]) for place in places)
    return int((scores > best).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--scores", default="logits,log_softmax")
    parser.add_argument("--removals", default="unk,space,attention")
    parser.add_argument("--limit", type=int, default=100, help="prompts of each kind")
    asked = parser.parse_args()
    kinds = {name: KINDS[name][: asked.limit] for name in asked.kinds.split(",")}
    print(f"| method | score | removal | {' | '.join(f'{n} ({len(k)})' for n, k in kinds.items())} | all | seconds |")
    print(f"|{'---|' * (len(kinds) + 5)}")
    model, tokenizer = language_model()
    for name in asked.methods.split(","):
        method, option = METHODS[name]
        for score in asked.scores.split(","):
            for removal in asked.removals.split(",") if option else [""]:
                given = {option: removal} if option else {}
                explain = method(model, tokenizer, inference_mode=score, show_progress=False, batch_size=16, **given)
                begin, ranks = time.perf_counter(), {}
                for kind, questions in kinds.items():
                    outputs = explain([q.prompt for q in questions], targets=[q.continuation for q in questions])
                    ranks[kind] = torch.tensor([rank(o, q.reason) for o, q in zip(outputs, questions, strict=True)])
                every = [*ranks.values(), torch.cat(list(ranks.values()))]
                shares = " | ".join(f"{(r < 1).float().mean():.2f} / {(r < 2).float().mean():.2f}" for r in every)
                seconds = time.perf_counter() - begin
                print(f"| {name} | {score} | {removal} | {shares} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
