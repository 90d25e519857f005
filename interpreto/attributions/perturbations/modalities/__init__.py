"""What masking and moving mean for tokens, embeddings and pixels."""
