"""How the C library keeps the memory of tensors that were freed."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 << 20
# glibc takes no more.
_LARGEST_BYTES = 32 << 20


def keep_freed_memory() -> None:
    """Has glibc keep up to 256 MiB of freed memory, where there is glibc.

    By default it gives large blocks back at once, and each tensor of a step faults its pages in again: for sampling 8
    rows of 49,152 logits with min-p 9.7 ms instead of 2.5.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
