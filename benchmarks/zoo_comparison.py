"""Methods of inputs compared with several metrics on models of the zoo: the tables of docs/comparison.md.

`python -m benchmarks.zoo_comparison [COUNT] [NAME ...]` prints one table per model, for COUNT held-out samples.
"""

import sys

from benchmarks.tables import Table
from interpreto import INTERNALS, METHODS, Comparison, compare, zoo

METHODS_OF_INPUTS = [method for method in METHODS if method not in INTERNALS]
METRICS = "deletion,insertion,mu-fidelity,model-randomization"
LOCALIZATION = ",pointing-game,relevance-mass"
OPTIONS: dict[str, dict[str, str]] = {
    "shapes-vit": {},
    "reviews-bert": {},
    "stories-gpt2": {"inference_mode": "softmax"},
    "digits-vit": {},
}
"""The models and the options of `compare`."""


def compared(name: str, count: int) -> Comparison:
    """The comparison on one model."""
    examples = zoo.samples(name, count)
    known = examples[0].truth is not None
    return compare(
        *zoo.load(name),
        [example.input for example in examples],
        methods=METHODS_OF_INPUTS,
        metrics=METRICS + LOCALIZATION * known,
        masks=[example.truth for example in examples] if known else None,
        targets=[example.label for example in examples] if name == "stories-gpt2" else None,
        **OPTIONS[name],
    )


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    for name in [word for word in sys.argv[1:] if not word.isdigit()] or OPTIONS:
        comparison = compared(name, counts[0] if counts else 16)
        print(f"\n{name}\n\n{comparison}", flush=True)
        frame = comparison.to_pandas()
        columns = {"metric": "", "method": "", "mean": ".3f", "low": ".3f", "high": ".3f"}
        Table(f"zoo-comparison-{name}", columns, frame[list(columns)].to_numpy().tolist(), n_keys=2).write()
