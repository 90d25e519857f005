"""The methods: each a choice of parts."""
