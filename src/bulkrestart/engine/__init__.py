"""The shell: it performs what the pure packages decide."""
