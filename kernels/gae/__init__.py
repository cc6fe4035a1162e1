"""Generalized advantage estimation."""
