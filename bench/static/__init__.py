"""`fastppo static`: what the compilers make of every kernel, without a GPU."""
