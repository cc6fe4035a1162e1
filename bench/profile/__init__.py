"""`fastppo profile`: where the time of a few updates goes."""
