"""PPO's two hot functions, advantages and loss, as fused kernels: see `fastppo.kernels.api`."""
