"""Other PPO libraries on the task of a request: one program each, run in a venv of its own."""
