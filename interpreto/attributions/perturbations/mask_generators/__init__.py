"""Which units each evaluation masks."""
