"""Perturbators: a method that says how to change a sample, on a modality that says what changing means."""
