"""Gradient clipping and the Adam step over one flat buffer."""
