"""Paths: the points of the input space at which gradients are taken."""
