"""What a restart costs: run `python -m benchmarks.restart` and `python -m benchmarks.memory`."""
