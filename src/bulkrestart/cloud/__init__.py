"""The edge: one method is one request, and what goes wrong comes back as a value."""
