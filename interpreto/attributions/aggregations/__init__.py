"""Aggregators: from the scores of perturbed rows to scores of units, with standard errors."""
