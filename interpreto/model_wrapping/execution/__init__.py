"""How a model is run: working copies, precision, gradients, and checks of its outputs."""
