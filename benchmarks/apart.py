"""Runs a measurement in a process of its own: what an earlier one left behind, caches or garbage, is not in it."""

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Open files that 1,000 connections need, with room to spare; many systems allow 1,024 unless asked.
_DESCRIPTORS: Final = 4_096


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of a module in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=raise_descriptors) as process:
        return process.submit(function, *args, **kwargs).result()


def raise_descriptors() -> None:
    """Let this process open as many files as the benchmarks need, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
