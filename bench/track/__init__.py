"""`fastppo track`: stored results to Weights & Biases."""
