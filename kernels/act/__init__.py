"""Sampling actions: the noise, the log-probability and the entropy in one pass."""
