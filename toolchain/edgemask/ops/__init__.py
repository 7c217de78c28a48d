"""Primitives and their interpreters."""
