"""Encoders; see the package docstring."""
