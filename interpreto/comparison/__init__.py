"""Comparing attribution methods on a user's model and data: runs, results, and their uncertainty."""
