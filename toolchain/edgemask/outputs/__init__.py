"""Output steps: from the model's answer to the one that is wanted."""
