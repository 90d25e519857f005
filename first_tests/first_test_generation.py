"""Every method on two stories of the zoo's GPT-2, in one figure and one page to explore.

python first_tests/first_test_generation.py [--out FOLDER]
"""

import argparse
from pathlib import Path

from interpreto import IMAGES_ONLY, INTERNALS, METHODS, plot_attributions, zoo


def main(out: Path) -> None:
    model, tokenizer = zoo.load("stories-gpt2")
    examples = zoo.samples("stories-gpt2", 2)
    # Without the beginning of its last sentence, so that the model has more to say.
    prompts = [example.input.rsplit(" ", 4)[0] for example in examples]
    methods = [method for method in METHODS if method not in (*INTERNALS, *IMAGES_ONLY)]
    results = {method.__name__: method(model, tokenizer, inference_mode="softmax")(prompts) for method in methods}
    for name, outputs in results.items():
        first = outputs[0]
        thing = first.target_names.index(examples[0].label)
        top = first.elements[int(first.attributions[thing].nan_to_num(-1).argmax())].strip()
        print(f"{name:20} {''.join(first.target_names)!r} {examples[0].label!r} rests on: {top}")
    plot_attributions(results, out / "first-test-generation.png")
    plot_attributions(results, out / "first-test-generation.html")
    print(f"The figure and the page are in {out}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
