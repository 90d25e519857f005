"""Maskers and gradient inputs for texts and images."""
