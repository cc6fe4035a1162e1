"""`fastppo gpu-check`: everything that only a GPU can tell."""
