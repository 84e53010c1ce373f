"""Limits how many requests leave, and when. Pure: nothing here waits, and the time is an argument."""
