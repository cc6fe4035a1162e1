"""metrics.jsonl mirrored elsewhere: Weights & Biases and TensorBoard."""
