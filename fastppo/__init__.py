"""A PPO trainer and benchmark suite built around fused kernels."""

__version__ = "0.1.0"
