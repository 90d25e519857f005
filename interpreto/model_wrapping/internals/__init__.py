"""Internals of a model: attention probabilities, values and activations of layers, and their gradients."""
