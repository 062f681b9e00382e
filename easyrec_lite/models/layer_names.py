"""Stable names for layers that are given none."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from keras.src.backend.common import global_state

_COUNTERS = "object_name_uids"


@contextlib.contextmanager
def fresh_layer_names() -> Iterator[None]:
    """Keras numbers unnamed layers over the whole process (`dense_7`); inside, it starts again for each model.

    Checkpoints know variables by name, so a second model of the same config must have the names of the first. The
    only public way, `keras.backend.clear_session`, would also end whatever else the user does with Keras.
    """
    before = global_state.get_global_attribute(_COUNTERS)
    global_state.set_global_attribute(_COUNTERS, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_COUNTERS, before)
