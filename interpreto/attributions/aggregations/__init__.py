"""Aggregators: folds from the scores of changed rows to scores of units, with their standard errors."""
