"""Whether methods find the word that the answer of a real language model depends on, for every score and removal.

`python -m benchmarks.real_language_model` explains prompts of eight kinds with SmolLM2-135M-Instruct and prints, for
each method and setting, the share of prompts with the known word on top and among the top two. `--kinds`, `--methods`,
`--scores`, `--removals` and `--baselines` choose among them.
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from benchmarks.real_models import language_model
from benchmarks.tables import Table
from interpreto import (
    BlurIG,
    GradientShap,
    GuidedIG,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    Rise,
    Saliency,
    SmoothGrad,
    Sobol,
)

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
FACTS = {
    "The name of the dog is Rex": "What is the name of the dog?",
    "The password is banana": "What is the password?",
    "Peter works as a pilot": "What does Peter work as?",
    "The train leaves at seven": "When does the train leave?",
    "Anna's favourite colour is green": "What is Anna's favourite colour?",
    "The winner of the race was Thomas": "Who was the winner of the race?",
    "The treasure is hidden under the bridge": "Where is the treasure hidden?",
    "Our teacher was born in Madrid": "Where was our teacher born?",
    "The doctor drives a yellow taxi": "What does the doctor drive?",
    "The meeting is on Thursday": "When is the meeting?",
    "The queen gave the boy a mirror": "What did the queen give the boy?",
    "My neighbour plays the violin": "What does my neighbour play?",
}
# Held out: written after the defaults had been chosen on the prompts above.
YOUNG = {"cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb", "dog": "puppy", "duck": "duckling"}
PAST_TENSES = {"see": "saw", "take": "took", "come": "came", "give": "gave", "write": "wrote", "run": "ran"}
CURRENCIES = {
    "Japan": "yen",
    "England": "pound",
    "Mexico": "peso",
    "India": "rupee",
    "Russia": "ruble",
    "China": "yuan",
}
FIRST_WORDS = {"Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo", "Austria": "Vienna", "Sweden": "Stockholm"}
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
        continuation: The answer; its last unit is explained.
        reason: The unit that the answer depends on, a word or a sentence.
        candidates: The units that are ranked; None for all that are not part of the answer.
    """

    prompt: object
    continuation: str
    reason: str
    candidates: tuple[str, ...] | None = None


def chat(question):
    return [{"role": "user", "content": question}]


def in_context(unit):
    """Prompts of a fact in a story of 300 words that end with the beginning of the fact.

    The reason is the last word of the fact, or the whole sentence.
    """
    sentences = STORY.replace("\n", " ").split(". ")
    for number, fact in enumerate(FACTS):
        begin, _, word = fact.rpartition(" ")
        place = 1 + number * len(sentences) // len(FACTS)
        prompt = ". ".join([*sentences[:place], fact, *sentences[place:]]) + f" {begin}"
        yield Question(prompt, f" {word}", word if unit == "word" else f"{fact}.")


def among_sentences():
    """Questions about one of eight sentences."""
    facts = list(FACTS)
    for number, fact in enumerate(facts):
        some = [facts[(number + step) % len(facts)] + "." for step in range(8)]
        # In eight successive prompts, the sentence of the answer is at each of the eight positions once.
        turned = some[-(number % 8) :] + some[: -(number % 8)]
        yield Question(chat(" ".join([*turned, FACTS[fact]])), fact.split()[-1].capitalize(), f"{fact}.", tuple(some))


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
    "unseen": [
        *(Question(f"A baby {animal} is called a", f" {young}", animal) for animal, young in YOUNG.items()),
        *(Question(f'The past tense of "{verb}" is "', past, verb) for verb, past in PAST_TENSES.items()),
        *(
            Question(f"The currency used in {country} is the", f" {name}", country)
            for country, name in CURRENCIES.items()
        ),
        *(
            Question(f"{country}'s capital is the city of", f" {city}", f"{country}'s")
            for country, city in FIRST_WORDS.items()
        ),
    ],
    "contexts": list(in_context("word")),
    "sentences": list(among_sentences()),
    "context-sentences": list(in_context("sentence")),
}
# Each method with its option for what replaces a word; None if it replaces nothing.
METHODS = {
    "Occlusion": (Occlusion, "removal"),
    "KernelShap": (partial(KernelShap, n_samples=64), "removal"),
    "Lime": (partial(Lime, n_samples=64), "removal"),
    "Sobol": (partial(Sobol, n_samples=128), "removal"),
    "Rise": (partial(Rise, n_samples=64), "removal"),
    "IntegratedGradients": (IntegratedGradients, "baseline"),
    "GradientShap": (partial(GradientShap, n_samples=32), "baseline"),
    "GuidedIG": (GuidedIG, "baseline"),
    "Saliency": (Saliency, None),
    "InputXGradient": (InputXGradient, None),
    "SmoothGrad": (partial(SmoothGrad, n_samples=16), None),
    "BlurIG": (partial(BlurIG, max_sigma=5.0), None),
}


def rank(output, question):
    """The number of units with a higher score for the last unit of the continuation than the known unit."""
    scores = output.ranking_scores[-1].nan_to_num(-torch.inf)
    units = [_plain(unit) for unit in output.elements]
    if question.candidates is not None:
        candidates = [_plain(candidate) for candidate in question.candidates]
        scores = torch.tensor([float(scores[units.index(unit)]) for unit in candidates])
        units = candidates
    # The word may occur more than once.
    best = max(float(score) for score, unit in zip(scores, units, strict=True) if unit == _plain(question.reason))
    return int((scores > best).sum())


def _plain(unit):
    return unit.strip(" .,?!\"'\n").lower()


def shares(ranks):
    return f"{(ranks < 1).float().mean():.2f} / {(ranks < 2).float().mean():.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--scores", default="logits,log_softmax")
    parser.add_argument("--removals", default="unk,space,attention,attention-sink")
    parser.add_argument("--baselines", default="zeros,unk,space", help="where path integrals start")
    parser.add_argument("--bos", default="none", help="tokens before plain prompts: none, or texts of tokens")
    parser.add_argument("--limit", type=int, default=100, help="prompts of each kind")
    arguments = parser.parse_args()
    kinds = {name: KINDS[name][: arguments.limit] for name in arguments.kinds.split(",")}
    names = [f"{kind} ({len(questions)})" for kind, questions in kinds.items()]
    columns = ["method", "score", "removal or baseline", "BOS", *names, "all", "time, s"]
    Table("real-language-model", dict.fromkeys(columns, ".0f"), rows(arguments, kinds), n_keys=4).run()


def rows(arguments, kinds):
    model, tokenizer = language_model()
    for name in arguments.methods.split(","):
        method, option = METHODS[name]
        replacements = {
            "removal": arguments.removals.split(","),
            "baseline": arguments.baselines.split(","),
            None: [""],
        }[option]
        for score, removal, bos in product(arguments.scores.split(","), replacements, arguments.bos.split(",")):
            replacement = {option: removal} if option else {}
            if bos != "none":
                tokenizer.bos_token = bos
            options = {"inference_mode": score, "prepend_bos": bos != "none", "batch_size": 16, **replacement}
            begin, ranks = time.perf_counter(), {}
            for kind, questions in kinds.items():
                unit = "sentence" if kind.endswith("sentences") else "word"
                explain = method(model, tokenizer, granularity=unit, show_progress=False, **options)
                outputs = explain([q.prompt for q in questions], targets=[q.continuation for q in questions])
                ranks[kind] = torch.tensor([rank(o, q) for o, q in zip(outputs, questions, strict=True)])
            cells = [shares(values) for values in [*ranks.values(), torch.cat(list(ranks.values()))]]
            yield name, score, removal, bos, *cells, time.perf_counter() - begin


if __name__ == "__main__":
    main()
