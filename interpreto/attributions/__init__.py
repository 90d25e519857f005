"""Which parts of an input a model's output rests on."""
