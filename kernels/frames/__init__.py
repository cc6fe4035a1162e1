"""Minibatches of stacked frames, from a buffer that holds each frame once."""
