"""How a model is run: working copies, precision, gradients and the checks of its numbers."""
