import pytest
from hypothesis import HealthCheck, settings

# The first example of a test compiles its kernel, and two shared cores are no stopwatch.
settings.register_profile(
    "fastppo", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fastppo")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")
