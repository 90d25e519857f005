"""Every method on two reviews of the zoo's BERT, in one figure and one HTML page.

python first_tests/first_test_text.py [--out FOLDER]
"""

import argparse
from pathlib import Path

from interpreto import IMAGES_ONLY, METHODS, plot_attributions, zoo


def main(out: Path) -> None:
    model, tokenizer = zoo.load("reviews-bert")
    texts = [example.input for example in zoo.samples("reviews-bert", 2)]
    results = {method.__name__: method(model, tokenizer)(texts) for method in METHODS if method not in IMAGES_ONLY}
    for name, outputs in results.items():
        top = outputs[0].elements[int(outputs[0].attributions[0].argmax())].strip()
        print(f"{name:20} {outputs[0].target_names[0]:9} top word: {top}")
    plot_attributions(results, out / "first-test-text.png")
    plot_attributions(results, out / "first-test-text.html")
    print(f"The figure and the HTML page are in {out}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
