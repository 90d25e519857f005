"""Plans: configured methods, independent of the model, as generators of the requests that explain one sample."""
