"""Retrain models of the zoo: `python -m interpreto.zoo.train [NAME ...]`, all of them without names."""

import sys

from interpreto.zoo import digits_cnn, digits_vit, reviews_bert, shapes_clip, shapes_vit, stories_gpt2

RECIPES = {
    module.NAME: module.train
    for module in (digits_cnn, digits_vit, reviews_bert, shapes_clip, shapes_vit, stories_gpt2)
}

if __name__ == "__main__":
    for name in sys.argv[1:] or RECIPES:
        RECIPES[name]()
