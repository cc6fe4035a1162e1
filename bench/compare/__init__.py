"""`fastppo compare`: two result files, row by row."""
