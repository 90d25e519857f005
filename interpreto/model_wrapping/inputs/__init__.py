"""From a user's sample to model inputs: texts, prompts, chats and images."""
