"""One command's life: its run directory, checkpoints, signals, display, and how it ends."""
