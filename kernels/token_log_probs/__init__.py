"""Log-probabilities of tokens under logits as wide as a vocabulary."""
