"""Masks: one file, one mask, defined once for every backend."""
