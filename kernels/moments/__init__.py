"""Running mean and variance of rows, and normalization by them."""
