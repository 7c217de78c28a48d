"""Bake gradient-masking preprocessing into vision models, measure what it buys, and pack the result for devices."""

__version__ = "0.1.0"
