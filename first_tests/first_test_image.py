"""Every method on two scenes of the zoo's ViT, in one figure.

python first_tests/first_test_image.py [--out FOLDER]
"""

import argparse
from pathlib import Path

from interpreto import METHODS, plot_attributions, zoo


def main(out: Path) -> None:
    model, processor = zoo.load("shapes-vit")
    images = [example.input for example in zoo.samples("shapes-vit", 2)]
    results = {method.__name__: method(model, processor)(images) for method in METHODS}
    for name, outputs in results.items():
        row, column = divmod(int(outputs[0].attributions[0].argmax()), 8)
        print(f"{name:20} {outputs[0].target_names[0]:8} top patch: row {row}, column {column}")
    plot_attributions(results, out / "first-test-image.png")
    print(f"The figure is {out / 'first-test-image.png'}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
