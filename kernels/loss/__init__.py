"""The PPO losses with their gradients in one pass."""
