"""One inference wrapper per task and modality, the functions that stand in for models, and the detection of tasks."""
