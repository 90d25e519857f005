"""Every method on an image for two prompts, and on a text for an image, with the zoo's CLIP, in two figures.

python first_tests/first_test_clip.py [--out FOLDER]
"""

import argparse
from pathlib import Path

from interpreto import IMAGES_ONLY, METHODS, plot_attributions, zoo


def main(out: Path) -> None:
    model, processor = zoo.load("shapes-clip")
    first, second = zoo.samples("shapes-clip", 2)
    prompts = (first.label, second.label)
    results = {method.__name__: method(model, processor)(first.input, prompts) for method in METHODS}
    for name, (output,) in results.items():
        tops = [divmod(int(scores.argmax()), 8) for scores in output.attributions]
        top_patches = ", ".join(f"{prompt}: {top}" for prompt, top in zip(output.target_names, tops, strict=True))
        print(f"{name:20} top patches: {top_patches}")
    plot_attributions(results, out / "first-test-clip.png")
    text = f"{first.label} and {second.label}"
    texts = {
        method.__name__: method(model, processor, modality="text")(text, first.input)
        for method in METHODS
        if method not in IMAGES_ONLY
    }
    plot_attributions(texts, out / "first-test-clip-text.png")
    print(f"The figures are {out / 'first-test-clip.png'} and {out / 'first-test-clip-text.png'}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    main(parser.parse_args().out)
