"""`fastppo bench kernels`: every kernel at real shapes, compared with eager and compiled torch."""
