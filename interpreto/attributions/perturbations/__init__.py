"""Perturbators: mask and path generators, combined with the text and image modalities that they perturb."""
