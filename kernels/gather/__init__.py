"""The rows of a minibatch, gathered from every field in one pass."""
