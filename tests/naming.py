"""Names of the cases of a test: the same in every process, as tests that run side by side must have them."""

import re


def name_of(value: object) -> str:
    """Give the beginning of what a value looks like, without where it lies in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:60]
