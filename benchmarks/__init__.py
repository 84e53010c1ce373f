"""What a restart costs: `make bench`, or `python -m benchmarks`."""
