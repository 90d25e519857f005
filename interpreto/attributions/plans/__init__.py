"""What a method is, apart from a model: a choice of parts, and the plan that puts them to work on one sample."""
