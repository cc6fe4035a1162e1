"""pytest fixtures by which any project gates its own kernels and training loops."""
