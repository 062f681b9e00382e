"""How the process keeps memory that TensorFlow frees and soon asks for again."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
_M_TOP_PAD, _M_MMAP_THRESHOLD = -2, -3
_PAD = 2**24
_LARGEST_KEPT = 2**25  # the most that glibc allows


def keep_freed_memory() -> bool:
    """Has glibc keep some freed memory, instead of giving it back and asking for it anew; returns whether it does.

    A step makes and frees tensors of megabytes. Glibc gives back what is free at the end of a heap, and gets it from
    the kernel again, which fills each page with zeros when it is touched: 2,000 times a step for 4,096 rows of a
    MultiTower. With 16 MiB kept at the end of each heap it is 100 times (`python -m tools.bench.memory`).

    Nothing is done where there is no glibc, or the environment sets these (`MALLOC_*`, `GLIBC_TUNABLES`).
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others may have a mallopt that means something else
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_M_TOP_PAD, _PAD))
