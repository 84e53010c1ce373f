"""What bulkrestart knows and decides: standard library only; no await, no clock, no randomness, no logging."""
