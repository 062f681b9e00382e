"""What can be asked of the collection: each request is one output tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf


@dataclass(frozen=True)
class Concat:
    """Single-valued features side by side, by one gather: `[B, len(features) * dim]`.

    Attributes:
        features: names of the features, each with ids `[B]`.
        tables: the table of each feature; all of one width.
    """

    features: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Pooled:
    """The rows of a multi-valued feature, combined: `[B, dim]`; an empty bag gives zeros.

    Attributes:
        combiner: `sum`, `mean` or `sqrtn`, as in `tf.nn.embedding_lookup_sparse`.
    """

    feature: str
    table: str
    combiner: str = "sum"


@dataclass(frozen=True)
class Sequence:
    """The rows of a sequence, flat: values `[N, dim]` with row_splits `[B + 1]`.

    Steps with several values are combined first.
    """

    feature: str
    table: str
    combiner: str = "sum"


Request = Concat | Pooled | Sequence


class SequenceOutput(NamedTuple):
    """A batch of sequences without padding.

    Attributes:
        values: `[N, dim]`, the steps of all rows one after the other.
        row_splits: `[B + 1]` int64; row i has steps row_splits[i] .. row_splits[i+1].
    """

    values: tf.Tensor
    row_splits: tf.Tensor
