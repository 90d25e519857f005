"""Train the zoo again: `python -m interpreto.zoo.train [NAME ...]`."""

import sys

from interpreto.zoo import digits_vit, reviews_bert, shapes_vit

RECIPES = {module.NAME: module.train for module in (digits_vit, reviews_bert, shapes_vit)}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        RECIPES[name]()
