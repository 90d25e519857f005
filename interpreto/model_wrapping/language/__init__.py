"""Text models and causal language models: embeddings, heads, prefix caches and targets made of tokens."""
