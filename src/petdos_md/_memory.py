"""Memory that a network has freed is kept for its next evaluation.

A network allocates and frees the same large arrays in every frame. The C library gives such arrays back to the system at once,
which then clears every page anew: up to a third of the time of an evaluation.

>>> keep_freed_memory(torch.device("cpu"))                                              # doctest: +SKIP
True
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

import torch

KEPT_BYTES = 2**30
"""Free memory beyond this at the end of the heap is given back."""

CHOSEN_BY = (
    "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD",
)  # fmt: skip
"""Variables of the environment by which a user chooses how memory is allocated."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory(device: torch.device) -> bool:
    """Before a network runs on the CPU: set the allocator of this process (mallopt of glibc); returns whether that was done.

    Nothing is done where the C library is another one, or where one of :data:`CHOSEN_BY` is set.
    """
    return device.type == "cpu" and _set_once()


@functools.cache
def _set_once() -> bool:
    if any(name in os.environ for name in CHOSEN_BY) or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_MAX, 0))
