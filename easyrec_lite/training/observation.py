"""What batches look like, for those who watch the data: exactly the trained ones, though the input reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from easyrec_lite.features import Columns, Encoded, HashedIds, HashedOnce, Ids, flat_parts
from easyrec_lite.training.callbacks import Callback

if TYPE_CHECKING:
    from easyrec_lite.models import Batch
    from easyrec_lite.training.loop import Trainer


class ObservedBatch(NamedTuple):
    """A batch as NumPy arrays; ragged ones have `flat_values` and `row_splits`.

    Attributes:
        rows: B.
        encoded: features by name, as `features.Statistics` reads them.
        labels: by name, `[B]` or `[B, dim]`.
        missing: empty cells, by feature of one column: what they were filled with no longer tells.
        times: event times `[B]` in seconds since 1970, if there is a column of them.
        newest: the newest event time of the rows; -inf if unknown.
        position: the next row to read after this batch, JSON.
        hashed: the ids of `encoded`, hashed once for all listeners.
    """

    rows: int
    encoded: Mapping[str, Any]
    labels: Mapping[str, np.ndarray]
    missing: Mapping[str, int]
    times: np.ndarray | None
    newest: float
    position: str
    hashed: Callable[[], HashedIds] | None = None


Listener = Callable[[ObservedBatch], None]


class TrainedBatches(Callback):
    """Remembers each batch from the input pipeline, which runs ahead, until it is trained; then tells the listeners.

    Batches leave the graph once, however many listen. They are told just before the step, in the thread of the graph
    and in order, so that what they do in threads of their own runs beside the step; a batch they were told of is
    trained when `on_steps` is called. Put it before them in the list of callbacks.

    Args:
        columns: by feature, the column whose missing cells are the feature's; not for those made of several.
        event_time: the column of the event time, or ''.
    """

    def __init__(self, columns: Mapping[str, str], event_time: str = "") -> None:
        self._columns = dict(columns)
        self._event_time = event_time
        self._waiting: deque[ObservedBatch] = deque()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """From now on, tells `listener` of each batch; it must return at once, and not raise."""
        self._listeners.append(listener)

    def observe(
        self,
        encoded: Mapping[str, Encoded],
        labels: Mapping[str, tf.Tensor],
        columns: Columns,
        missing: Mapping[str, tf.Tensor],
        newest: tf.Tensor,
        position: tf.Tensor,
    ) -> tf.Operation | None:
        """An op that remembers the batch."""
        if not self._listeners:
            return None
        times = [columns[self._event_time]] if self._event_time else []
        unseen = {name: missing[column] for name, column in self._columns.items() if name in encoded}
        tree = (dict(encoded), dict(labels), unseen, times, newest, position)
        leaves = [_parts(leaf) for leaf in tf.nest.flatten(tree)]

        def remember(*flat: Any) -> np.int64:
            values = iter(flat)
            arrays = [_join([next(values) for _ in parts]) for parts in leaves]
            features, targets, counts, clock, latest, place = tf.nest.pack_sequence_as(tree, arrays)
            self._waiting.append(
                ObservedBatch(
                    _rows(next(iter(features.values()))[0]),
                    features,
                    targets,
                    counts,
                    clock[0] if clock else None,
                    float(latest),
                    place.decode(),
                    _hashed(features),
                )
            )
            return np.int64(0)

        return tf.numpy_function(remember, [part for parts in leaves for part in parts], tf.int64).op

    def score(
        self,
        batch: Batch,
        predictions: Callable[[], dict[str, tf.Tensor]],
        step: tf.Tensor,
        event_time: tf.Tensor | None = None,
    ) -> tf.Operation | None:
        """An op that tells the listeners of the batch."""
        if not self._listeners:
            return None

        def tell() -> np.int64:
            observed = self._waiting.popleft()
            for listener in self._listeners:
                listener(observed)
            return np.int64(0)

        return tf.numpy_function(tell, [], tf.int64).op

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._waiting.clear()

    def close(self) -> None:
        """See Callback. Whoever listened is gone: a step that is built from now on tells nobody."""
        self._listeners.clear()


def listening_thread(name: str) -> ThreadPoolExecutor:
    """A thread for the work of a listener.

    It is begun here and now: one that is begun by the first batch, in a thread of TensorFlow, takes over that thread's
    way of computing, in which the smallest numbers are 0.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix=name)
    worker.submit(int).result()
    return worker


class _Ragged:
    """Flat values and row_splits, as `Statistics` reads them."""

    def __init__(self, flat_values: np.ndarray, row_splits: np.ndarray) -> None:
        self.flat_values, self.row_splits = flat_values, row_splits


def _parts(leaf: Any) -> list[tf.Tensor]:
    if leaf is None:
        return []
    return [leaf.flat_values, leaf.row_splits] if isinstance(leaf, tf.RaggedTensor) else [leaf]


def _join(parts: list[np.ndarray]) -> Any:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else _Ragged(*parts)


def _hashed(encoded: Mapping[str, Any]) -> HashedOnce:
    return HashedOnce({name: flat_parts(out[0])[0] for name, out in encoded.items() if isinstance(out, Ids)})


def _rows(values: Any) -> int:
    return len(values.row_splits) - 1 if isinstance(values, _Ragged) else len(values)
