"""Steps inside the model: what stands in place of its own nodes."""
