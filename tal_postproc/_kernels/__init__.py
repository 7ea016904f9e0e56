"""The numba kernels: serial, nogil, one signature each.  Arrays in, arrays out; no options as strings, no checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compile without the GIL, and keep the result on disk where numba finds a folder that it may write to.

    Divisions are IEEE: kernels look at a denominator themselves, and compile faster without a check of each.

    What is on disk goes by the kernel's own file: after a change in `segments`, which others call, empty the cache.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package, the home nor NUMBA_CACHE_DIR is writable, as in some containers
        return njit(nogil=True, error_model="numpy")(function)
