"""Metrics: how good attributions are, by what the model, a mask or the attributions themselves say."""
