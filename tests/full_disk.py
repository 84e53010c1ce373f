"""A disk that is full: a file takes what fits, and no more."""

import errno
import os

import pytest


def fill_disk(patch: pytest.MonkeyPatch, *, room: int) -> None:
    """Let files take no byte beyond so many; as on a real disk, a write takes what still fits before one fails."""
    really = os.pwrite

    def limited(descriptor: int, data: bytes, at: int) -> int:
        if data and at >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(descriptor, data[: room - at], at)

    patch.setattr(os, "pwrite", limited)
