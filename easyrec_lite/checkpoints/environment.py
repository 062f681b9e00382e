"""What, besides the config and the rows, decides the bits of a training run."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any


def environment(threads: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return versions, processor and thread counts; kept in every checkpoint. Imports nothing.

    Args:
        threads: the thread counts in effect, such as `{"inter_op": 2, "intra_op": 2}`, which only the caller knows.
    """
    return {
        "easyrec_lite": _version("easyrec_lite"),
        "tensorflow": _version("tensorflow"),
        "keras": _version("keras"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": _cpus(),
        # oneDNN's kernels sum in another order than the plain ones.
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "threads": dict(threads or {}),
    }


def environment_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry that differs: with any, a resumed run need not end in the same bits."""
    return [
        f"{key}: {then.get(key, 'unknown')} in the checkpoint, {now.get(key, 'unknown')} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]


def _version(package: str) -> str:
    # The loaded module knows best: TensorFlow is also installed as tensorflow-cpu and others.
    module = sys.modules.get(package)
    if module is not None and hasattr(module, "__version__"):
        return str(module.__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
