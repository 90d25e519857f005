"""Models with an image tower and a text tower, and targets that compare the two."""
