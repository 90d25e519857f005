"""Mask generators: which units each evaluation masks."""
