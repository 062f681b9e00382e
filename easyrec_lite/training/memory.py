"""How the process keeps memory that TensorFlow frees and soon asks for again."""

from __future__ import annotations

import ctypes
import os

import tensorflow as tf

# TensorFlow's own allocator, which keeps what it has; by itself it stops at 64 GiB, here at what the machine has.
_TENSORFLOW = {"TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(2**30)}

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_HEAP = 2**26  # the size of a heap of glibc: with so much kept at its end nothing of it is given back
_LARGEST_KEPT = 2**25  # the most that glibc allows
_FREE = 2**30  # that may lie at the end of the main heap


def keep_freed_memory() -> bool:
    """Has TensorFlow and glibc keep freed memory, instead of giving it back and asking for it anew.

    A step makes and frees tensors of megabytes. Where they are given back to the kernel, it fills each page with zeros
    when it is next touched: 15,000 times a step of 4,096 rows of a MultiTower, 100,000 times with histories, a third of
    the time and more (`python -m tools.bench.memory`). TensorFlow's own allocator, made for GPUs, keeps memory; it is
    taken if this is called before TensorFlow does anything in this process. If it is too late for that, glibc keeps
    blocks of up to 32 MiB; and what is no tensor's, such as the buffers of matrix products, is always glibc's.

    The environment goes before: `TF_CPU_ALLOCATOR_USE_BFC`, and for glibc `MALLOC_*` and `GLIBC_TUNABLES`.

    Returns:
        Whether glibc was told; it is not where there is another library, or the environment tells it.
    """
    _begin_tensorflow()
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others may have a mallopt that means something else
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    told = [mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT), mallopt(_M_TOP_PAD, _HEAP), mallopt(_M_TRIM_THRESHOLD, _FREE)]
    return all(told)


def _begin_tensorflow() -> None:
    """Has it choose its allocator, which it does once, and tell glibc what it will.

    The first generator that it reads in a process makes TensorFlow 2.21 ask glibc to give back every block of 128 KiB
    and more, against a leak of Python 3.11: here one is read before we ask for the contrary.
    """
    new = {name: value for name, value in _TENSORFLOW.items() if name not in os.environ}
    os.environ.update(new)
    try:
        for _ in tf.data.Dataset.from_generator(lambda: [0], output_signature=tf.TensorSpec([], tf.int64)):
            pass
    finally:
        for name in new:  # child processes get it as it was
            del os.environ[name]
