"""Every method on two stories of the zoo's GPT-2, in one figure and one interactive HTML page.

python first_tests/first_test_generation.py [--out FOLDER]
"""

import argparse
from pathlib import Path

from interpreto import IMAGES_ONLY, INTERNALS, METHODS, plot_attributions, zoo


def main(out: Path) -> None:
    model, tokenizer = zoo.load("stories-gpt2")
    examples = zoo.samples("stories-gpt2", 2)
    # Cut off the beginning of the last sentence, so that the model generates several words.
    prompts = [example.input.rsplit(" ", 4)[0] for example in examples]
    methods = [method for method in METHODS if method not in (*INTERNALS, *IMAGES_ONLY)]
    results = {method.__name__: method(model, tokenizer, inference_mode="softmax")(prompts) for method in methods}
    for name, outputs in results.items():
        output = outputs[0]
        target = output.target_names.index(examples[0].label)
        # Units after the target cannot influence it: NaN.
        top = output.elements[int(output.attributions[target].nan_to_num(-1).argmax())].strip()
        print(f"{name:20} {''.join(output.target_names)!r}, top word for {examples[0].label!r}: {top}")
    plot_attributions(results, out / "first-test-generation.png")
    plot_attributions(results, out / "first-test-generation.html")
    print(f"The figure and the HTML page are in {out}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
