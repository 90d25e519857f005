"""Everything that touches a model: tasks, inputs, rows, and the wrappers that run them."""
