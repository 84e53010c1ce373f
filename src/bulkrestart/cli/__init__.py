"""The command line. It reads input, asks, shows and exits; the library does the work."""
