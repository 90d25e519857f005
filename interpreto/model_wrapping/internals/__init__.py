"""What a model computes on its way: attention probabilities, values, features of layers, and gradients for these."""
