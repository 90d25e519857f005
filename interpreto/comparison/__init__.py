"""Comparing methods on a user's model and data: runs, what they found, and how sure that is."""
