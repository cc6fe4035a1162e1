"""The benchmark suite, imported as `fastppo.bench` and run by `python -m fastppo.bench`."""
