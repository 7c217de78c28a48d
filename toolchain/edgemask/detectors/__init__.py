"""Detectors: steps around the model that give an answer about the input itself."""
