"""What methods, metrics, granularities and modalities outside this package are made of."""
