"""JSON that takes NumPy values, for manifests and journals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, *, finite: bool = False) -> Any:
    """Return `value` in JSON's own types.

    Args:
        value: mappings with text keys, sequences, NumPy arrays and scalars, text, numbers, bool, None.
        finite: make null of NaN and Infinity, which Python's JSON knows and the standard does not.

    Raises:
        TypeError: for anything else; keys that are not text too, since they would come back as text.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, finite=finite) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"JSON keys are text; received {key!r} ({type(key).__name__})")
        return {key: plain(item, finite=finite) for key, item in value.items()}
    raise TypeError(f"cannot be written as JSON: {value!r} ({type(value).__name__})")


def canonical(value: Any) -> bytes:
    """Return the one spelling of a value of `plain` that checksums are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
